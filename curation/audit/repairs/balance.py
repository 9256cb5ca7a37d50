"""Balance: the fewest pairs dropped until |Σ signs| ≤ tolerance · pairs kept for every listed feature.

Pairs with the same signs are interchangeable, so the unknowns are how many of each pattern stay. The linear relaxation
(HiGHS) bounds what any subset could keep; its solution is rounded down, mended and filled up again, and small sets are
given to branch and bound besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from curation.audit.repairs.pairs import Gone, Made, Pairs, without
from curation.audit.repairs.targets import Target, signs_of

NODES = 2000  # of branch and bound
BRANCHED = 3000  # patterns up to which it is tried
FILLS = 400  # pairs put back at most after rounding
SLACK = 1e-9


class Kept(NamedTuple):
    """Which pairs stay, and how many any subset could keep at the most."""

    keep: np.ndarray  # bool (N,)
    bound: int


@dataclass(frozen=True)
class Balance:
    """Drop pairs until no listed feature pulls more than `tolerance`."""

    tolerance: float = 0.01
    name = "balance"
    by_targets = True

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made:
        kept = most_kept(signs_of(pairs.corpus, targets, workers), self.tolerance)
        lost = ~pairs.in_rows(kept.keep)
        gone: list[Gone] = [
            (name, "balanced", "dropped so that no listed feature pulls")
            for name, left in zip(pairs.ids, lost.tolist(), strict=True)
            if left
        ]
        n, share, bound = pairs.corpus.pairs, float(kept.keep.mean()), kept.bound / pairs.corpus.pairs
        says = [
            f"{int(kept.keep.sum()):,} of {n:,} pairs stay ({share:.1%}); no subset could keep more than {bound:.1%}"
        ]
        return Made(without(pairs.rows, gone), gone, {}, {"kept": share, "bound": bound}, says)


def most_kept(signs: sparse.csr_matrix, tolerance: float) -> Kept:
    """As many columns of `signs` (features, N) as can stay so that every row's |sum| ≤ tolerance · their number."""
    n = signs.shape[1]
    if (np.abs(np.asarray(signs.sum(1)).ravel()) <= tolerance * n + SLACK).all():
        return Kept(np.ones(n, bool), n)
    of, size, patterns = _patterns(signs)
    relaxed = _relaxed(patterns, size, tolerance)
    bound = min(n, int(np.floor(relaxed.sum() + 1e-5)))
    best = _filled(_mended(np.floor(relaxed + 1e-7).astype(np.int64), patterns, tolerance), size, patterns, tolerance)
    if len(size) <= BRANCHED and best.sum() < bound:
        found = _branched(patterns, size, tolerance)
        if found is not None and found.sum() > best.sum():
            best = found
    rank = _rank_within(of)
    return Kept(rank < best[of], bound)


def _patterns(signs: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pattern of each pair, pairs of each pattern, and the patterns (P, features)."""
    dense = np.ascontiguousarray(signs.T.toarray().astype(np.int8))
    rows = dense.view(np.dtype((np.void, dense.shape[1]))).ravel()
    _, first, of, size = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    return of.ravel(), size.astype(np.int64), dense[first].astype(np.int64)


def _rank_within(of: np.ndarray) -> np.ndarray:
    """How many pairs of the same pattern stand before each pair."""
    order = np.argsort(of, kind="stable")
    start = np.concatenate([[0], np.flatnonzero(np.diff(of[order])) + 1])
    rank = np.empty(len(of), np.int64)
    rank[order] = np.arange(len(of)) - np.repeat(start, np.diff([*start.tolist(), len(of)]))
    return rank


def _constraints(patterns: np.ndarray, tolerance: float) -> sparse.csr_matrix:
    """Rows that must be ≤ 0 of (kept of each pattern, all kept): Σ signs − tolerance · kept, both ways; the last is = 0."""
    turned = sparse.csr_matrix(patterns.T)
    column = sparse.csr_matrix(np.full((patterns.shape[1], 1), -tolerance))
    total = sparse.csr_matrix(np.append(np.ones(len(patterns)), -1.0))
    return sparse.vstack([sparse.hstack([turned, column]), sparse.hstack([-turned, column]), total]).tocsr()


def _relaxed(patterns: np.ndarray, size: np.ndarray, tolerance: float) -> np.ndarray:
    """How much of each pattern the linear relaxation keeps."""
    rows = _constraints(patterns, tolerance)
    cost = np.append(np.zeros(len(size)), -1.0)
    limits = np.stack([np.zeros(len(size) + 1), np.append(size, size.sum())], 1)
    made = linprog(cost, rows[:-1], np.zeros(rows.shape[0] - 1), rows[-1], [0.0], limits, method="highs")
    assert made.status == 0, made.message  # keeping nothing is always allowed
    found: np.ndarray = np.minimum(np.maximum(made.x[:-1], 0), size)
    return found


def _branched(patterns: np.ndarray, size: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The best whole numbers found within so many nodes, not seconds: the same on every machine."""
    rows = _constraints(patterns, tolerance)
    low = np.append(np.full(rows.shape[0] - 1, -np.inf), 0.0)
    made = milp(
        np.append(np.zeros(len(size)), -1.0), integrality=np.ones(len(size) + 1),
        bounds=Bounds(np.zeros(len(size) + 1), np.append(size, size.sum())),
        constraints=LinearConstraint(rows, low, np.zeros(rows.shape[0])), options={"node_limit": NODES},
    )  # fmt: skip
    if made.x is None:
        return None
    kept = np.round(made.x[:-1]).astype(np.int64)
    return kept if _fits(kept @ patterns, kept.sum(), tolerance) else None


def _fits(sums: np.ndarray, kept: int, tolerance: float) -> bool:
    return bool((np.abs(sums) <= tolerance * kept + SLACK).all())


def _mended(kept: np.ndarray, patterns: np.ndarray, tolerance: float) -> np.ndarray:
    """Pairs taken away, the one that lessens the excess most first, until all sums fit."""
    kept = kept.copy()
    while True:
        sums = kept @ patterns
        excess = np.maximum(0, np.abs(sums) - tolerance * kept.sum())
        if _fits(sums, int(kept.sum()), tolerance):
            return kept
        gain = np.where(kept > 0, patterns @ (np.sign(sums) * (excess > SLACK)), -np.inf)
        best = int(np.argmax(gain))
        kept[best] -= min(int(kept[best]), max(1, int(excess.max() / 2 / max(1, np.abs(patterns[best]).max()))))


def _filled(kept: np.ndarray, size: np.ndarray, patterns: np.ndarray, tolerance: float) -> np.ndarray:
    """Pairs put back while all sums still fit, what leaves most room first."""
    kept = kept.copy()
    for _ in range(FILLS):
        sums, total = kept @ patterns, int(kept.sum()) + 1
        open_ = np.flatnonzero(kept < size)
        after = np.abs(sums + patterns[open_]).max(1) if patterns.shape[1] else np.zeros(len(open_))
        if not len(open_) or after.min() > tolerance * total + SLACK:
            return kept
        kept[open_[int(np.argmin(after))]] += 1
    return kept
