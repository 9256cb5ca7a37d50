"""Preference losses against the papers' formulas, written out in plain float64 arithmetic."""

import math

import pytest
import torch

from curation.errors import InputError
from training.preference_losses import AT_START, LOSSES, LossSettings, Ratios, check_loss

CHOSEN, REJECTED, LONG, SHORT, OFFSET = 1.3, -0.7, 9.0, 4.0, 0.25


def σ(x: float) -> float:
    return 1 / (1 + math.exp(-x))


B, Δ = 0.4, CHOSEN - REJECTED
MEAN = CHOSEN / LONG - REJECTED / SHORT
FORMULAS = {
    "sigmoid": -math.log(σ(B * Δ - OFFSET)),
    "hinge": max(0.0, 1 - (B * Δ - OFFSET)),
    "ipo": (MEAN - OFFSET / B - 1 / (2 * B)) ** 2,
    "robust": (-0.9 * math.log(σ(B * Δ - OFFSET)) + 0.1 * math.log(σ(-(B * Δ - OFFSET)))) / 0.8,
    "apo_zero": 1 - σ(B * CHOSEN) + σ(B * REJECTED),
    "apo_down": σ(B * CHOSEN) + 1 - σ(B * Δ - OFFSET),
    "sigmoid_norm": -math.log(σ(B * MEAN - OFFSET)),
    "simpo": -math.log(σ(B * MEAN - 0.5 - OFFSET)),
}


def settings(name: str) -> LossSettings:
    return LossSettings(beta=B, label_smoothing=0.1 if name == "robust" else 0.0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_papers_formula(name: str):
    values = [torch.tensor([x], dtype=torch.float64) for x in (CHOSEN, REJECTED, LONG, SHORT, OFFSET)]
    assert LOSSES[name](Ratios(*values), settings(name)).item() == pytest.approx(FORMULAS[name], abs=1e-12)


@pytest.mark.parametrize("name", AT_START)
def test_the_loss_of_an_unmoved_policy_is_known(name: str):
    zero, ten = torch.zeros(1, dtype=torch.float64), torch.full((1,), 10.0, dtype=torch.float64)
    found = LOSSES[name](Ratios(zero, zero, ten, ten, zero), settings(name)).item()
    assert found == pytest.approx(AT_START[name](settings(name)), abs=1e-12)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "apo_zero"])
def test_every_loss_pulls_the_sides_apart(name: str):
    values = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (0.1, -0.1)]
    rest = [torch.tensor([x], dtype=torch.float64) for x in (8.0, 8.0, 0.0)]
    LOSSES[name](Ratios(*values, *rest), settings(name)).sum().backward()
    assert values[1].grad.item() > 0 and values[1].grad.item() > values[0].grad.item()


@pytest.mark.parametrize(
    ("name", "given", "offsets"),
    [
        ("sigmoid", LossSettings(beta=0.0), False),
        ("sigmoid", LossSettings(label_smoothing=0.1), False),
        ("robust", LossSettings(), False),
        ("robust", LossSettings(label_smoothing=0.5), False),
        ("apo_zero", LossSettings(), True),
    ],
)
def test_a_setting_that_would_do_nothing_is_an_error(name: str, given: LossSettings, offsets: bool):
    with pytest.raises(InputError):
        check_loss(name, given, offsets)
