"""Preference losses: pure functions of log-ratios, one number per pair, named as TRL names them.

A log-ratio is log π(y|x) − log π_ref(y|x), summed over the completion (nats). `offset` is how much more than zero the
scaled margin β·(chosen − rejected) is asked to be (Amini et al. 2024, arXiv 2402.10571).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from curation.errors import InputError

LossName = Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down", "sigmoid_norm", "simpo"]


@dataclass(frozen=True)
class Ratios:
    """What a loss sees of B pairs, each (B,)."""

    chosen: torch.Tensor  # log-ratio; SimPO: log-probability
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor  # completion tokens
    rejected_tokens: torch.Tensor
    offset: torch.Tensor

    @property
    def delta(self) -> torch.Tensor:
        return self.chosen - self.rejected

    @property
    def mean_delta(self) -> torch.Tensor:
        """Difference of the per-token averages."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


@dataclass(frozen=True)
class LossSettings:
    beta: float = 0.1
    label_smoothing: float = 0.0  # robust: share of labels taken to be flipped
    gamma: float = 0.5  # simpo: target margin


def sigmoid(r: Ratios, s: LossSettings) -> torch.Tensor:
    """DPO (Rafailov et al. 2023, arXiv 2305.18290)."""
    return -F.logsigmoid(s.beta * r.delta - r.offset)


def hinge(r: Ratios, s: LossSettings) -> torch.Tensor:
    """SLiC's hinge on the DPO margin (Zhao et al. 2023, arXiv 2305.10425)."""
    return torch.relu(1 - (s.beta * r.delta - r.offset))


def ipo(r: Ratios, s: LossSettings) -> torch.Tensor:
    """IPO on per-token averages (Azar et al. 2023, arXiv 2310.12036, eq. 17)."""
    return (r.mean_delta - (1 / 2 + r.offset) / s.beta) ** 2


def robust(r: Ratios, s: LossSettings) -> torch.Tensor:
    """DPO unbiased under flipped labels (Chowdhury et al. 2024, arXiv 2403.00409)."""
    margin, flipped = s.beta * r.delta - r.offset, s.label_smoothing
    return (-(1 - flipped) * F.logsigmoid(margin) + flipped * F.logsigmoid(-margin)) / (1 - 2 * flipped)


def apo_zero(r: Ratios, s: LossSettings) -> torch.Tensor:
    """APO for chosen answers better than the model's own (D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7)."""
    return 1 - torch.sigmoid(s.beta * r.chosen) + torch.sigmoid(s.beta * r.rejected)


def apo_down(r: Ratios, s: LossSettings) -> torch.Tensor:
    """APO for chosen answers worse than the model's own (same, eq. 8)."""
    return torch.sigmoid(s.beta * r.chosen) + 1 - torch.sigmoid(s.beta * r.delta - r.offset)


def sigmoid_norm(r: Ratios, s: LossSettings) -> torch.Tensor:
    """DPO on per-token averages (Tülu 3's length-normalised DPO, arXiv 2411.15124)."""
    return -F.logsigmoid(s.beta * r.mean_delta - r.offset)


def simpo(r: Ratios, s: LossSettings) -> torch.Tensor:
    """SimPO: average log-probabilities, no reference, target margin γ (Meng et al. 2024, arXiv 2405.14734)."""
    return -F.logsigmoid(s.beta * r.mean_delta - s.gamma - r.offset)


LOSSES: dict[str, Callable[[Ratios, LossSettings], torch.Tensor]] = {
    f.__name__: f for f in (sigmoid, ipo, hinge, robust, apo_zero, apo_down, sigmoid_norm, simpo)
}
WITHOUT_REFERENCE = ("simpo",)
AT_START: dict[str, Callable[[LossSettings], float]] = {  # the loss when policy = reference and offset = 0
    "sigmoid": lambda s: 0.6931471805599453, "sigmoid_norm": lambda s: 0.6931471805599453, "hinge": lambda s: 1.0,
    "ipo": lambda s: (1 / (2 * s.beta)) ** 2, "robust": lambda s: 0.6931471805599453, "apo_zero": lambda s: 1.0,
    "apo_down": lambda s: 1.0,
}  # fmt: skip


def check_loss(name: str, settings: LossSettings, with_offsets: bool) -> None:
    """Raises InputError for settings that would be ignored or have no meaning with this loss."""
    if settings.beta <= 0:
        raise InputError("beta", str(settings.beta), "a number above 0", "0.1 is DPO's usual, 2.0 SimPO's")
    if (name == "robust") != (settings.label_smoothing > 0) or settings.label_smoothing >= 0.5:
        raise InputError(
            "label_smoothing", f"{settings.label_smoothing} with loss {name}", "0 < label_smoothing < 0.5, with robust alone",
            "set it with --loss robust, leave it out otherwise",
        )  # fmt: skip
    if name != "simpo" and settings.gamma != LossSettings().gamma:
        raise InputError("gamma", f"{settings.gamma} with loss {name}", "simpo", "leave it out, or use --loss simpo")
    if name == "apo_zero" and with_offsets:
        raise InputError(
            "loss", "apo_zero with rows that have an offset", "a loss with a margin", "use sigmoid or apo_down"
        )
