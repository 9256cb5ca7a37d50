"""AdamW and learning-rate schedules, with the values Hugging Face's schedules give."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

Schedule = Literal["linear", "cosine", "constant"]


def adamw(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """Fused AdamW over the parameters that are trained (Loshchilov & Hutter 2019)."""
    trained = [p for p in parameters if p.requires_grad]
    return torch.optim.AdamW(trained, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


def schedule_factor(schedule: Schedule, step: int, steps: int, warmup: int) -> float:
    """Share of the peak rate at `step` (0-based): linear warm-up, then constant, linear to 0 or half a cosine to 0."""
    if step < warmup:
        return step / max(1, warmup)
    if schedule == "constant":
        return 1.0
    left = (steps - step) / max(1, steps - warmup)
    return max(0.0, left) if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))
