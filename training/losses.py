"""Losses: pure functions, tensors in, sums out. The loop divides by the supervised weight of the whole step."""

import torch
import torch.nn.functional as F
from torch import nn

TILE_VOCABULARY = 32768  # from here on, on CUDA, logits are made in tiles and never held whole


def weighted_nll(
    hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor, weights: torch.Tensor | None, measure: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Σ w·(−log p(target)) over N supervised positions, and, if `measure`, sums of entropy (nats) and top-1 hits.

    hidden (N, H): only positions that predict a taught token, so the head works on those alone. targets (N,).
    """
    # A head with adapters is a subclass: its forward must run, so only a plain one is tiled.
    if type(head) is nn.Linear and hidden.is_cuda and head.bias is None and weights is None and not measure:
        matrix: torch.Tensor = head.weight
        if matrix.shape[0] >= TILE_VOCABULARY and hasattr(F, "linear_cross_entropy"):
            return F.linear_cross_entropy(hidden, matrix, targets, reduction="sum"), {}
    logits = head(hidden).float()
    if weights is None:
        loss = F.cross_entropy(logits, targets, reduction="sum")
    else:
        loss = (F.cross_entropy(logits, targets, reduction="none") * weights).sum()
    return loss, token_statistics(logits.detach(), targets) if measure else {}


@torch.no_grad()
def token_statistics(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over positions, by TRL's names: entropy of the prediction (nats) and how often its top token is the target."""
    log_p = logits.log_softmax(-1)
    return {
        "entropy": -(log_p.exp() * log_p).sum(),
        "mean_token_accuracy": (logits.argmax(-1) == targets).sum(),
        "measured": torch.tensor(float(len(targets)), device=logits.device),
    }
