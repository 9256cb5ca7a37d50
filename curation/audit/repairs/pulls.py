"""How hard a preference loss pulls on a feature at its first step, and what a probe tells less than before.

With weight w and offset o a pair's loss −log σ(m − o) has the slope w · σ(o) at margin 0; so a feature with signs d pulls

    Σ 2 σ(o_i) w_i d_i / Σ w_i          which is (chosen − rejected) / pairs where there is neither weight nor offset
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from curation.audit.features import gathered, survey
from curation.audit.findings import signed_rows
from curation.audit.incidence import FAMILIES
from curation.audit.probe import Rung
from curation.audit.repairs.pairs import Pairs
from curation.audit.repairs.targets import Target, signs_of
from curation.audit.surface import Surfaces

SURE = 1.96  # standard errors of an interval
WARN = 0.03  # pull from which on a finding is more than info
LEAST_Z = 4.5  # of a feature that nobody looked for, among some ten thousand
RARE = 0.01  # share of pairs below which no weighting within its bounds makes a feature pull much
BOOTSTRAPS = 1000


class Pull(NamedTuple):
    """With its 95 % interval over prompts."""

    value: float
    low: float
    high: float

    @property
    def least(self) -> float:
        """The end nearest 0, 0 where the interval holds it."""
        return max(0.0, self.low, -self.high)


class Drop(NamedTuple):
    """Bits per pair that the words rung of the probe had before and has after, with the 95 % interval of their difference."""

    before: float
    after: float
    low: float
    high: float


def steps(pairs: Pairs) -> np.ndarray:
    """How much each corpus pair counts at the first step, over Σ w: float64 (N,)."""
    weights = pairs.weights
    found: np.ndarray = 2 * weights / (1 + np.exp(-pairs.offsets)) / weights.sum()
    return found


def pulls_of(pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> list[Pull]:
    """Of every listed feature, counted anew from the texts."""
    values, errors = _pulls(signs_of(pairs.corpus, targets, workers), pairs)
    return [Pull(v, v - SURE * e, v + SURE * e) for v, e in zip(values.tolist(), errors.tolist(), strict=True)]


def _pulls(signs: sparse.csr_matrix, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Pulls and their standard errors, prompts drawn as wholes."""
    groups, prompts, weights = pairs.corpus.groups, pairs.corpus.prompts, pairs.weights
    member = sparse.csr_matrix((np.ones(len(groups)), groups, np.arange(len(groups) + 1)), shape=(len(groups), prompts))
    by_prompt = (signs @ sparse.diags(steps(pairs)) @ member).tocsr()
    share = np.bincount(groups, weights, prompts) / weights.sum()
    values = np.asarray(by_prompt.sum(1)).ravel()
    squares = np.asarray(by_prompt.multiply(by_prompt).sum(1)).ravel()
    variance = squares - 2 * values * (by_prompt @ share) + values**2 * (share**2).sum()
    return values, np.sqrt(np.maximum(0, variance) * prompts / max(1, prompts - 1))


def pulled_anew(before: Pairs, after: Pairs, workers: int = 1) -> list[tuple[Target, Pull]]:
    """Features of texts that only the weights and offsets of `after` make pull. Both hold the same texts."""
    corpus = after.corpus
    seen = survey(corpus, workers)
    keys, found = gathered(corpus, seen.buckets, int(min(255, max(8, RARE * corpus.pairs))), workers)
    often = np.flatnonzero(found.count >= RARE * corpus.pairs)
    keys, found = keys[often], found.part(often)
    signs = signed_rows(found, np.arange(found.size))
    (was, was_error), (now, error) = _pulls(signs, before), _pulls(signs, after)
    quiet = np.abs(was) - SURE * was_error < WARN
    loud = (np.abs(now) - SURE * error >= WARN) & (np.abs(now) > LEAST_Z * error) & (np.abs(now) > np.abs(was))
    surfaces = Surfaces(found, corpus, ())
    return [
        (
            Target(FAMILIES[int(keys[f] & np.uint64(7))], surfaces.of(int(f)), f"{int(keys[f]):016x}"),
            Pull(float(now[f]), float(now[f] - SURE * error[f]), float(now[f] + SURE * error[f])),
        )
        for f in np.flatnonzero(quiet & loud)
    ]


def bit_drop(before: tuple[Pairs, Rung], after: tuple[Pairs, Rung]) -> Drop:
    """What the probe tells less, prompts drawn with replacement, each with its pairs of both sides."""
    sums = [_by_prompt(*one) for one in (before, after)]
    prompts = sorted(set(sums[0]) | set(sums[1]))
    table = np.array([[*sums[0].get(p, (0.0, 0.0)), *sums[1].get(p, (0.0, 0.0))] for p in prompts])
    rng, drops = np.random.default_rng(0), []
    for _ in range(BOOTSTRAPS):
        drawn = np.bincount(rng.integers(0, len(prompts), len(prompts)), minlength=len(prompts)) @ table
        drops.append(drawn[0] / max(drawn[1], 1e-9) - drawn[2] / max(drawn[3], 1e-9))
    whole = table.sum(0)
    low, high = np.quantile(drops, [0.025, 0.975])
    return Drop(float(whole[0] / whole[1]), float(whole[2] / max(whole[3], 1e-9)), float(low), float(high))


def _by_prompt(pairs: Pairs, rung: Rung) -> dict[str, tuple[float, float]]:
    """Σ of weighted bits and Σ of weights, by prompt, of the pairs the probe saw."""
    seen = len(rung.per_pair)
    rows, weights = pairs.corpus.rows[:seen], pairs.weights[:seen]
    prompts = np.array(pairs.rows["prompt_id"].to_pylist(), dtype=object)[rows]
    found: dict[str, tuple[float, float]] = {}
    for prompt, bits, weight in zip(prompts.tolist(), rung.per_pair.tolist(), weights.tolist(), strict=True):
        total, size = found.get(prompt, (0.0, 0.0))
        found[prompt] = (total + weight * bits, size + weight)
    return found
