"""Losses: pure functions, tensors in, sums out. The loop divides by the supervised weight of the whole step."""

import torch
import torch.nn.functional as F
from torch import nn

TILE_VOCABULARY = 32768  # from here on, on CUDA, logits are made in tiles and never held whole
TILE_LOGITS = 2**28  # logits of one tile: 1 GiB in fp32, large enough to keep the matrix units busy


def weighted_nll(
    hidden: torch.Tensor, head: nn.Module, targets: torch.Tensor, weights: torch.Tensor | None, measure: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Σ w·(−log p(target)) over N supervised positions, and, if `measure`, sums of entropy (nats) and top-1 hits.

    hidden (N, H): only positions that predict a taught token, so the head works on those alone. targets (N,).
    """
    # A head with adapters is a subclass: its forward must run, so only a plain one is tiled.
    if type(head) is nn.Linear and head.bias is None and hidden.is_cuda and hasattr(nn, "LinearCrossEntropyOptions"):
        matrix: torch.Tensor = head.weight
        if matrix.shape[0] >= TILE_VOCABULARY:
            return tiled_nll(hidden, matrix, targets, weights, measure)
    return logits_nll(head(hidden), targets, weights, measure)


def logits_nll(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, measure: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """`weighted_nll` from logits (N, V), computed in fp32 or better."""
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    if weights is None:
        loss = F.cross_entropy(logits, targets, reduction="sum")
    else:
        loss = (F.cross_entropy(logits, targets, reduction="none") * weights).sum()
    return loss, token_statistics(logits.detach(), targets) if measure else {}


def tiled_nll(
    hidden: torch.Tensor,
    matrix: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    measure: bool = False,
    tile: int | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """`weighted_nll` with a plain output matrix (V, H), `tile` rows of logits at a time (default by TILE_LOGITS)."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # the tiled operator does not heed autocast
        hidden, matrix = (x.to(torch.get_autocast_dtype(kind)) for x in (hidden, matrix))
    rows = min(max(1, len(hidden)), tile or max(256, TILE_LOGITS // matrix.shape[0]))
    # Low-precision products accumulate in fp32 natively on CUDA; elsewhere only this policy avoids emulation.
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows, acc_policy="auto" if kind == "cuda" else "accurate")
    with torch.autocast(kind, enabled=False):
        if weights is None:
            loss = F.linear_cross_entropy(hidden, matrix, targets, reduction="sum", options=options)
        else:
            each = F.linear_cross_entropy(hidden, matrix, targets, reduction="none", options=options)
            loss = (each.float() * weights).sum()
        return loss.float(), _statistics_in_tiles(hidden, matrix, targets, rows) if measure else {}


@torch.no_grad()
def _statistics_in_tiles(
    hidden: torch.Tensor, matrix: torch.Tensor, targets: torch.Tensor, rows: int
) -> dict[str, torch.Tensor]:
    parts = [
        token_statistics((h @ matrix.T).float(), t)
        for h, t in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return {name: torch.stack([p[name] for p in parts]).sum(0) for name in parts[0]}


@torch.no_grad()
def token_statistics(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over positions, by TRL's names: entropy of the prediction (nats) and how often its top token is the target."""
    log_p = logits.log_softmax(-1)
    return {
        "entropy": -(log_p.exp() * log_p).sum(),
        "mean_token_accuracy": (logits.argmax(-1) == targets).sum(),
        "measured": torch.tensor(float(len(targets)), device=logits.device),
    }
