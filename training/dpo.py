"""Direct preference optimisation on curated pairs: chosen up, rejected down, relative to where the model started.

thresher train dpo --model M --data runs/x/dpo --out runs/x/model
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from curation.errors import InputError
from curation.pair_source import read_pairs
from curation.stage import Outcome
from training.config import TrainConfig
from training.data import Batches
from training.distributed import Ranks
from training.forward import Forward
from training.losses import Statistics, average
from training.models import load_model, without_dropout
from training.pairs import PairBatch, PairExample, check_sharing, encode_pairs, pack_pairs, unshared
from training.preference_losses import (
    AT_START,
    LOSSES,
    WITHOUT_REFERENCE,
    LossName,
    LossSettings,
    Ratios,
    check_loss,
)
from training.reference import reference_logps, with_cached, with_reference
from training.trainer import Method, TrainResult, train_by

START_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}


@dataclass(frozen=True)
class DPOConfig(TrainConfig):
    learning_rate: float = 1e-6  # peak; models of a few million parameters want 1e-4
    loss: LossName = "sigmoid"  # sigmoid is DPO
    beta: float = 0.1  # how closely the policy is held to the reference; SimPO wants 2.0
    label_smoothing: float = 0.0  # share of labels taken to be flipped, for robust
    gamma: float = 0.5  # target margin, for simpo
    sft_weight: float = 0.0  # plus so much of the chosen answers' mean token loss
    share_prefix: bool = True  # compute what both sides begin with once
    cached_reference: bool = True  # use ref_chosen_logps and ref_rejected_logps of the shard where they fit the model

    @property
    def settings(self) -> LossSettings:
        return LossSettings(self.beta, self.label_smoothing, self.gamma)


class DPOModule(nn.Module):
    """A causal language model with a preference loss over a PairBatch."""

    def __init__(self, model: Any, config: DPOConfig) -> None:
        super().__init__()
        without_dropout(model)
        self.run = Forward(model)
        self.config = config
        self.with_reference = config.loss not in WITHOUT_REFERENCE
        check_sharing(config.share_prefix, self.run.packs)

    def forward(self, batch: PairBatch, measure: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logps, terms, seen = self.terms(batch, measure)
        losses = LOSSES[self.config.loss](terms, self.config.settings)
        total = (losses * batch.weights).sum()
        if self.config.sft_weight:
            # Weighted so that the loop's division by the step's pairs leaves the mean over its chosen tokens.
            total = total - self.config.sft_weight * batch.step_pairs_per_token * logps[::2].sum()
        return total, self._measured(batch, logps, terms, seen) if seen else {}

    def terms(self, batch: PairBatch, measure: bool) -> tuple[torch.Tensor, Ratios, Statistics | None]:
        """Log-probabilities of all completions (2B,), what the loss sees, and statistics of the tokens if `measure`."""
        nll, seen = self.run.nll(batch.rows, measure)
        logps = sequence_logps(nll, batch)
        ratios = logps - batch.reference.to(logps.dtype) if self.with_reference else logps
        (chosen, rejected), (chosen_tokens, rejected_tokens) = (
            ratios.view(-1, 2).unbind(1),
            batch.lengths.view(-1, 2).unbind(1),
        )
        return logps, Ratios(chosen, rejected, chosen_tokens, rejected_tokens, batch.offsets), seen

    def _measured(
        self, batch: PairBatch, logps: torch.Tensor, terms: Ratios, seen: Statistics
    ) -> dict[str, torch.Tensor]:
        """TRL's metrics, each as (sum, count)."""
        scale = self.config.beta
        rewards = {"chosen": scale * terms.chosen, "rejected": scale * terms.rejected}
        is_chosen = batch.owner % 2 == 0
        found = {f"rewards/{side}": average(value) for side, value in rewards.items()}
        found["rewards/margins"] = average(rewards["chosen"] - rewards["rejected"])
        found["rewards/accuracies"] = average(rewards["chosen"] > rewards["rejected"])
        for i, side in enumerate(("chosen", "rejected")):
            found[f"logps/{side}"] = average(logps[i::2])
            found[f"logits/{side}"] = average(seen.mean_logit[is_chosen if i == 0 else ~is_chosen])
        found["entropy"] = average(seen.entropy)
        found["mean_token_accuracy"] = average(seen.hit[is_chosen])
        return found


def sequence_logps(nll: torch.Tensor, batch: PairBatch) -> torch.Tensor:
    """log p of every completion (2B,), nats, from its tokens' −log p."""
    return torch.zeros(len(batch.lengths), dtype=nll.dtype, device=nll.device).index_add(0, batch.owner, -nll)


def _encode(tokenizer: Any, rows: pa.Table, config: DPOConfig) -> tuple[list[PairExample], Outcome]:
    examples, account = encode_pairs(tokenizer, rows, config.max_length)
    check_loss(config.loss, config.settings, any(e.offset for e in examples))
    if config.cached_reference and config.loss not in WITHOUT_REFERENCE:
        examples = with_cached(examples, rows, config.model)
    return examples if config.share_prefix else unshared(examples), account


def _batches(
    module: DPOModule, examples: Sequence[PairExample], config: DPOConfig, steps: int, group: Ranks
) -> Batches:
    """The plan, over examples that know their reference: the start's own log-probabilities, computed once."""
    settings = (config.batch_size, steps, config.seed, config.shuffle, config.micro_tokens)
    plan = Batches(examples, *settings, pack=pack_pairs)
    if not module.with_reference:
        return plan
    used = sorted({row for step in range(min(steps, _steps_of_an_epoch(plan))) for row in plan.rows(step)})
    missing = [row for row in used if examples[row].reference is None]
    found = reference_logps(module.run, [examples[row] for row in missing], config, group)
    plan = dataclasses.replace(plan, examples=with_reference(examples, dict(zip(missing, found, strict=True))))
    check_start(module, plan, config, group)
    return plan


def _steps_of_an_epoch(plan: Batches) -> int:
    return -(-len(plan.examples) // plan.batch_size)


@torch.no_grad()
def check_start(module: DPOModule, plan: Batches, config: DPOConfig, group: Ranks) -> None:
    """Every pair's first loss must be that of a policy equal to its reference (ln 2 for DPO). Raises InputError.

    It is not when cached log-probabilities are another model's, or the model is not deterministic.
    """
    batch = plan(0)[0].to(group.device)
    with torch.autocast(group.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        _, terms, _ = module.terms(batch, measure=False)
    losses = LOSSES[config.loss](dataclasses.replace(terms, offset=torch.zeros_like(terms.offset)), config.settings)
    expected = AT_START[config.loss](config.settings)
    if float((losses - expected).abs().max()) > START_TOLERANCE[config.precision] * max(1.0, expected):
        raise InputError(
            "reference", f"a loss of {float(losses.mean()):.4f} before the first step", f"{expected:.4f}: policy = reference",
            "the shard's ref_*_logps are another model's: add --no-cached-reference",
        )  # fmt: skip


METHOD: Method[DPOConfig] = Method(
    kind="dpo", task="CAUSAL_LM", read=read_pairs, encode=_encode, load=load_model, module=DPOModule, batches=_batches,
)  # fmt: skip


def train(config: DPOConfig, model: Any = None) -> TrainResult:
    """Train and leave a model folder in `config.out`; see `train_by`."""
    return train_by(METHOD, config, model)
