"""Entropy balancing: weights as near to those given as they can be under which no listed feature pulls.

    min Σ w log(w/q) − w + q   with   |Σ w d_f| ≤ tolerance · Σ w,   Σ w = N,   least ≤ w/q ≤ most

q are the weights at hand, brought to mean 1. (Hainmueller 2012, with bounds: a weight near 0 is a pair dropped in
silence, and one pair that counts for twenty is noise.) Solved by its dual, which is smooth and has one variable per
feature. Where no such weights exist, a combination of features proves it (Farkas): its weighted sign is more than the
tolerance allows under every weighting within the bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linprog, minimize

from curation.audit.repairs.pairs import Made, Pairs, numbers, with_numbers
from curation.audit.repairs.targets import Target, signs_of
from curation.errors import InputError

ROOM = 0.98  # of the tolerance is aimed at, so that rounding stays inside


class Certificate(NamedTuple):
    """Why no weights do: Σ_f `features`[f] · d_f, averaged with any allowed weights, is at least `least` > `allowed`."""

    features: dict[int, float]  # row of the signs: its share in the combination
    least: float
    allowed: float


class Weighted(NamedTuple):
    weights: np.ndarray  # float64 (N,), mean 1
    tolerance: float  # the one that was reached: larger than asked where there is a certificate
    certificate: Certificate | None


@dataclass(frozen=True)
class Reweight:
    """Weights for the trainer under which no listed feature pulls more than `tolerance`."""

    tolerance: float = 0.01
    least: float = 0.1  # a pair's weight, of what it was
    most: float = 10.0
    name = "reweight"
    by_targets = True

    def __post_init__(self) -> None:
        if not 0 <= self.least < 1 < self.most:
            raise InputError(
                "reweight", f"weights from {self.least} to {self.most}", "0 ≤ least < 1 < most", "mend them"
            )

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made:
        given = pairs.weights
        if (given < 0).any() or not given.sum() > 0:
            raise InputError("weight", "weights below 0, or none above", "weights of 0 and more", "mend the column")
        signs = signs_of(pairs.corpus, targets, workers)
        made = entropy_balanced(signs, given, self.tolerance, self.least, self.most)
        share = effective(made.weights) / len(given)
        says = list[str]()
        notes: dict[str, Any] = {"ess": share, "ess_before": effective(given) / len(given), "tolerance": made.tolerance}
        if made.certificate:
            notes["certificate"] = _shown(made.certificate, targets, signs)
            says.append(_said(notes["certificate"], self))
        if np.array_equal(made.weights, given):
            return Made(pairs.rows, notes=notes, says=says)
        weights = pairs.in_rows(made.weights)
        old = numbers(pairs.rows, "weight", 1.0)
        why = {i: "entropy balanced" for i, a, b in zip(pairs.ids, old, weights, strict=True) if a != b}
        return Made(with_numbers(pairs.rows, "weight", weights), (), why, notes, says)


def effective(weights: np.ndarray) -> float:
    """Kish's effective sample size."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def entropy_balanced(
    signs: sparse.csr_matrix, given: np.ndarray, tolerance: float, least: float = 0.1, most: float = 10.0
) -> Weighted:
    """Weights for the columns of `signs` (features, N). The given ones as they are where they do already."""
    n = len(given)
    if _largest(signs, given) <= tolerance:
        return Weighted(given, tolerance, None)
    base = given * (n / given.sum())
    patterns, of = np.unique(np.ascontiguousarray(signs.T.toarray().astype(np.int8)), axis=0, return_inverse=True)
    mass, columns = np.bincount(of.ravel(), base, len(patterns)), sparse.csr_matrix(patterns.T.astype(np.float64))
    weights = _dual(columns, mass, tolerance * ROOM, least, most)
    certificate = None
    if _largest(columns, weights) > tolerance:
        reached, certificate = _nearest(columns, mass, tolerance, least, most)
        for room in (1e-4, 1e-3, 1e-2):
            weights = _dual(columns, mass, max(reached + room, tolerance * ROOM), least, most)
            if _largest(columns, weights) <= max(tolerance, reached + 2 * room):
                break
    # Pairs of one pattern share its weight as they did before.
    weights = base * np.divide(weights, mass, out=np.ones(len(mass)), where=mass > 0)[of.ravel()]
    weights *= n / weights.sum()
    return Weighted(weights, max(tolerance, _largest(signs, weights)), certificate)


def _largest(signs: sparse.csr_matrix, weights: np.ndarray) -> float:
    return float(np.abs(signs @ weights).max(initial=0) / weights.sum())


def _dual(signs: sparse.csr_matrix, base: np.ndarray, aim: float, least: float, most: float) -> np.ndarray:
    """The weights base · exp(λ·d + ν), kept within the bounds, at the λ and ν that maximise the dual."""
    features, total = signs.shape[0], base.sum()
    turned = signs.T.tocsr()
    low, high = np.log(max(least, 1e-12)), np.log(most)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        up, down, nu = x[:features], x[features:-1], x[-1]
        slope = turned @ (up - down) + nu
        log = np.clip(slope, low, high)
        w = base * np.exp(log)
        found = float((w * (slope - log + 1) - base).sum()) / total - nu + aim * (up + down).sum()
        pull = signs @ w / total
        return found, np.concatenate([pull + aim, -pull + aim, [w.sum() / total - 1]])

    bounds = [(0, 60)] * (2 * features) + [(-60, 60)]
    options = {"maxiter": 1000, "maxfun": 2000, "ftol": 1e-15, "gtol": 1e-6, "maxcor": 30}
    made = minimize(value, np.zeros(2 * features + 1), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    log = np.clip(turned @ (made.x[:features] - made.x[features:-1]) + made.x[-1], low, high)
    weights: np.ndarray = base * np.exp(log)
    return weights * (total / weights.sum())


def _nearest(
    signs: sparse.csr_matrix, mass: np.ndarray, tolerance: float, least: float, most: float
) -> tuple[float, Certificate | None]:
    """The smallest tolerance weights within the bounds can reach, and the certificate where that is more than asked.

    A linear program in the weights of patterns: min t with |Σ w d_f| ≤ t Σ w. Its dual solution is the combination.
    """
    features, n = signs.shape[0], float(mass.sum())
    column = sparse.csr_matrix(np.full((features, 1), -n))
    rows = sparse.vstack([sparse.hstack([signs, column]), sparse.hstack([-signs, column])]).tocsr()
    total = sparse.csr_matrix(np.append(np.ones(len(mass)), 0.0))
    limits = np.stack([np.append(least * mass, 0.0), np.append(most * mass, 1.0)], 1)
    cost = np.append(np.zeros(len(mass)), 1.0)
    made = linprog(cost, rows, np.zeros(rows.shape[0]), total, [n], limits, method="highs")
    assert made.status == 0, made.message
    if made.fun <= tolerance:
        return float(made.fun), None
    price = -made.ineqlin.marginals
    share = price[:features] - price[features:]
    share = np.where(np.abs(share) > 1e-7 * np.abs(share).max(), share, 0.0)
    share = share / np.abs(share).sum()
    floor = least_average(signs.T @ share, mass, least, most)
    if floor <= tolerance:  # too near to what is asked to be told apart
        return float(made.fun), None
    return float(made.fun), Certificate({int(f): float(share[f]) for f in np.flatnonzero(share)}, floor, tolerance)


def least_average(values: np.ndarray, mass: np.ndarray, least: float, most: float) -> float:
    """The smallest average of `values` under weights from least · mass to most · mass that sum to Σ mass."""
    order = np.argsort(values, kind="stable")
    weights, left = least * mass, (1 - least) * mass.sum()
    room = (most - least) * mass[order]
    before = np.concatenate([[0.0], np.cumsum(room)[:-1]])
    weights[order] += np.clip(left - before, 0, room)
    return float(weights @ values / mass.sum())


def _shown(found: Certificate, targets: Sequence[Target], signs: sparse.csr_matrix) -> dict[str, Any]:
    """The certificate with what the features are and how often each side alone has them."""
    listed = []
    for f, share in sorted(found.features.items(), key=lambda s: -abs(s[1])):
        data = signs[f].data
        listed.append({
            "family": targets[f].family, "feature": targets[f].feature, "share": share,
            "chosen": int((data > 0).sum()), "rejected": int((data < 0).sum()),
        })  # fmt: skip
    return {"features": listed, "least": found.least, "allowed": found.allowed}


def _said(found: dict[str, Any], bounds: Reweight) -> str:
    names = ", ".join(f"{f['feature']!r} ({f['chosen']}:{f['rejected']})" for f in found["features"][:6])
    return (
        f"no weights from {bounds.least:g} to {bounds.most:g} reach the tolerance: the combination of {names} pulls at least "
        f"{found['least']:.3f} under all of them, {found['allowed']:g} is allowed; there are too few counter-examples"
    )
