"""Token losses: pure functions, tensors in, sums or one number per target out. The loop divides."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

TILE_VOCABULARY = 32768  # from here on, on CUDA, logits are made in tiles and never held whole
CPU_TILE_BYTES = 64 * 2**20  # logits of one tile on CPU: smaller ones starve the matrix product
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
    if weights is not None or one_buffer_head(hidden, head) is not None:
        each, found = token_nll(hidden, head, targets, measure)
        return (each if weights is None else each * weights).sum(), found
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
    plain = one_buffer_head(hidden, head)
    if plain is not None:
        keeps = torch.is_grad_enabled() and (hidden.requires_grad or plain.requires_grad)
        seen = _statistics_in_tiles(hidden, plain, targets, _tile_rows(hidden, plain)) if measure else None
        return HeadNLL.apply(hidden, plain, targets, keeps), seen
    logits = _logits(hidden, head)
    return F.cross_entropy(logits, targets, reduction="none"), token_statistics(logits, targets) if measure else None


def one_buffer_head(hidden: torch.Tensor, head: nn.Module | None) -> torch.Tensor | None:
    """The output matrix (V, H) where `HeadNLL` applies (a plain head on CPU, in one full precision), else None."""
    if type(head) is not nn.Linear or head.bias is not None or torch.is_autocast_enabled(hidden.device.type):
        return None
    full = hidden.dtype in (torch.float32, torch.float64) and hidden.dtype == head.weight.dtype
    return head.weight if full and hidden.device.type == "cpu" else None


class HeadNLL(torch.autograd.Function):
    """Output layer and −log p in one buffer of logits: forward turns it into exp(logits − max) in place, backward turns
    that into the gradient. cross_entropy makes three such buffers, fresh memory each. Backward works once.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, matrix: torch.Tensor, targets: torch.Tensor, keeps: bool
    ) -> torch.Tensor:
        """hidden (N, H), matrix (V, H), targets (N,) → (N,). Without `keeps` there is no backward, and one tile is all."""
        rows = _tile_rows(hidden, matrix)
        buffer = hidden.new_empty(len(hidden) if keeps else min(rows, len(hidden)), matrix.shape[0])
        nll, totals = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
        for a in range(0, len(hidden), rows):
            h, t = hidden[a : a + rows], targets[a : a + rows, None]
            tile = buffer[a : a + rows] if keeps else buffer[: len(h)]
            torch.mm(h, matrix.T, out=tile)
            top, picked = tile.amax(1, keepdim=True), tile.gather(1, t)
            total = tile.sub_(top).exp_().sum(1, keepdim=True)
            nll[a : a + rows], totals[a : a + rows] = (total.log() + top - picked)[:, 0], total[:, 0]
        if keeps:
            ctx.save_for_backward(hidden, matrix, targets, totals)
            ctx.buffer, ctx.rows = buffer, rows
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        """Gradients of hidden and matrix: softmax − one-hot, each row times its slope."""
        hidden, matrix, targets, totals = ctx.saved_tensors
        buffer, ctx.buffer = ctx.buffer, None
        assert buffer is not None, "the buffer was used up by an earlier backward"
        for_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for a in range(0, len(hidden), ctx.rows):
            part = slice(a, a + ctx.rows)
            tile = buffer[part].mul_((slope[part] / totals[part])[:, None])
            tile.scatter_add_(1, targets[part, None], -slope[part, None])
            if for_hidden is not None:
                torch.mm(tile, matrix, out=for_hidden[part])
        return for_hidden, buffer.T @ hidden if ctx.needs_input_grad[1] else None, None, None


def _tile_rows(hidden: torch.Tensor, matrix: torch.Tensor) -> int:
    return max(1, CPU_TILE_BYTES // (matrix.shape[0] * hidden.element_size()))


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
        token_statistics(_logits(h @ matrix.T, None), t)
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
