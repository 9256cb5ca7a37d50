"""A margin for the trainer that says what the listed features say, so that the model need not (product of experts).

With d_i the signs of the flagged features in pair i and γ fitted to them alone, a preference loss is asked for

    −log σ(β Δ_i + γ · d_i)  =  −log σ(β Δ_i − offset_i),    offset_i = −γ · d_i

(R-DPO, Park et al. 2024, arXiv 2403.19159, for any feature). Where the features speak for the label the margin asked is
below 0, where they speak against it above: what is left to learn is what they do not say. γ is a ridge logistic
regression without intercept, each pair's from the prompts of the other folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from curation.audit.repairs.pairs import Made, Pairs, numbers, with_numbers
from curation.audit.repairs.targets import Target, signs_of

FOLDS = 5


@dataclass(frozen=True)
class Offset:
    """The offset column, from the listed features."""

    tolerance: float = 0.01
    ridge: float = 1.0
    name = "offset"
    by_targets = True

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made:
        if not targets:
            return Made(pairs.rows)
        signs = signs_of(pairs.corpus, targets, workers)
        gamma = folded_gamma(signs, pairs.corpus.groups, pairs.weights, self.ridge)
        fold = pairs.corpus.groups % FOLDS
        made = np.zeros(signs.shape[1])
        for f in range(FOLDS):
            made[fold == f] = -(signs.T.tocsr()[fold == f] @ gamma[f])
        # Twelve digits: sums of a few numbers in another order give the same offset.
        offsets, old = pairs.in_rows(np.round(made, 12) + 0.0), numbers(pairs.rows, "offset", 0.0)
        moved = np.flatnonzero(offsets != old)
        replaced = int((old[moved] != 0).sum())
        listed = [
            {"family": t.family, "feature": t.feature, "gamma": float(g), "spread": float(s)}
            for t, g, s in zip(targets, gamma.mean(0), gamma.std(0), strict=True)
        ]
        says = ["offset = −γ · (signs of the features), γ from the prompts of the other folds"]
        says += [f"{replaced:,} offsets that stood there were replaced"] if replaced else []
        if not len(moved):
            return Made(pairs.rows, notes={"gamma": listed}, says=says)
        why = {pairs.ids[i]: "offset of the listed features" for i in moved.tolist()}
        return Made(with_numbers(pairs.rows, "offset", offsets), (), why, {"gamma": listed}, says)


def folded_gamma(signs: sparse.csr_matrix, groups: np.ndarray, weights: np.ndarray, ridge: float) -> np.ndarray:
    """γ (FOLDS, features) for the pairs of each fold, fitted to all others. `groups`: the prompt of each pair."""
    rows = signs.T.tocsr().astype(np.float64)
    return np.stack([_fitted(rows[groups % FOLDS != f], weights[groups % FOLDS != f], ridge) for f in range(FOLDS)])


def _fitted(x: sparse.csr_matrix, weights: np.ndarray, ridge: float) -> np.ndarray:
    """Newton's method on Σ w log(1 + exp(−x·γ)) + ridge/2 |γ|²."""
    gamma = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(np.clip(x @ gamma, -50, 50)))
        slope = x.T @ (weights * p) - ridge * gamma
        curvature = (x.T @ sparse.diags(weights * p * (1 - p)) @ x).toarray() + ridge * np.eye(len(gamma))
        step = np.linalg.solve(curvature, slope)
        step *= min(1.0, 4.0 / max(1e-12, float(np.abs(step).max())))
        gamma += step
        if float(np.abs(step).max()) < 1e-10:
            break
    return gamma
