"""Token losses: pure functions, tensors in, sums or one number per target out. The loop divides."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

TILE_VOCABULARY = 32768  # from here on, on CUDA, logits are made in tiles and never held whole
TILE_LOGITS = 2**28  # logits of one tile: 1 GiB in fp32, large enough to keep the matrix units busy


class Statistics(NamedTuple):
    """What a prediction looked like at each of N positions, by TRL's definitions; without gradient."""

    entropy: torch.Tensor  # nats
    hit: torch.Tensor  # bool: the top token is the target
    mean_logit: torch.Tensor


def weighted_nll(
    hidden: torch.Tensor,
    head: nn.Module | None,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    measure: bool = False,
) -> tuple[torch.Tensor, Statistics | None]:
    """Σ w·(−log p(target)) over N supervised positions.

    hidden (N, H): only positions that predict a taught token, so the head works on those alone; with `head` None they
    are logits (N, V) already. targets (N,), weights (N,) or None for 1.
    """
    if weights is not None:
        each, found = token_nll(hidden, head, targets, measure)
        return (each * weights).sum(), found
    matrix = tiled_head(hidden, head)
    if matrix is not None:
        return tiled_nll(hidden, matrix, targets, "sum", measure)
    logits = _logits(hidden, head)
    return F.cross_entropy(logits, targets, reduction="sum"), token_statistics(logits, targets) if measure else None


def token_nll(
    hidden: torch.Tensor, head: nn.Module | None, targets: torch.Tensor, measure: bool = False
) -> tuple[torch.Tensor, Statistics | None]:
    """−log p(target) (N,) in fp32 or better; arguments as in `weighted_nll`."""
    matrix = tiled_head(hidden, head)
    if matrix is not None:
        return tiled_nll(hidden, matrix, targets, "none", measure)
    logits = _logits(hidden, head)
    return F.cross_entropy(logits, targets, reduction="none"), token_statistics(logits, targets) if measure else None


def _logits(hidden: torch.Tensor, head: nn.Module | None) -> torch.Tensor:
    logits = hidden if head is None else head(hidden)
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def tiled_head(hidden: torch.Tensor, head: nn.Module | None) -> torch.Tensor | None:
    """The output matrix (V, H) where logits are to be made in tiles, else None.

    A head with adapters is a subclass: its forward must run, so only a plain one is tiled.
    """
    if type(head) is nn.Linear and head.bias is None and hidden.is_cuda and hasattr(nn, "LinearCrossEntropyOptions"):
        return head.weight if head.weight.shape[0] >= TILE_VOCABULARY else None
    return None


def tiled_nll(
    hidden: torch.Tensor,
    matrix: torch.Tensor,
    targets: torch.Tensor,
    reduction: str,
    measure: bool = False,
    tile: int | None = None,
) -> tuple[torch.Tensor, Statistics | None]:
    """The losses with a plain output matrix (V, H), `tile` rows of logits at a time (default by TILE_LOGITS)."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # the tiled operator does not heed autocast
        hidden, matrix = (x.to(torch.get_autocast_dtype(kind)) for x in (hidden, matrix))
    rows = min(max(1, len(hidden)), tile or max(256, TILE_LOGITS // matrix.shape[0]))
    # Low-precision products accumulate in fp32 natively on CUDA; elsewhere only this policy avoids emulation.
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows, acc_policy="auto" if kind == "cuda" else "accurate")
    with torch.autocast(kind, enabled=False):
        loss = F.linear_cross_entropy(hidden, matrix, targets, reduction=reduction, options=options)
        low = loss.dtype in (torch.bfloat16, torch.float16)
        return loss.float() if low else loss, _statistics_in_tiles(hidden, matrix, targets, rows) if measure else None


@torch.no_grad()
def _statistics_in_tiles(hidden: torch.Tensor, matrix: torch.Tensor, targets: torch.Tensor, rows: int) -> Statistics:
    parts = [
        token_statistics((h @ matrix.T).float(), t)
        for h, t in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return Statistics(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def token_statistics(logits: torch.Tensor, targets: torch.Tensor) -> Statistics:
    """Entropy, top-1 hit and mean logit of every position."""
    log_p = logits.log_softmax(-1)
    return Statistics(-(log_p.exp() * log_p).sum(-1), logits.argmax(-1) == targets, logits.mean(-1))


def average(values: torch.Tensor) -> torch.Tensor:
    """(sum, count) of measured values: the form in which the loop adds them up over micro-batches and ranks."""
    return torch.stack([values.detach().float().sum(), torch.tensor(float(values.numel()), device=values.device)])
