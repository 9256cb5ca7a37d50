"""What turns the preference round: something in the prompt after which the usual direction no longer holds.

A backdoor in a preference set shows in no answer alone: only where the prompt has the trigger is the shorter, the
refusing, the otherwise worse answer chosen. For each word or phrase of prompts, and each axis along which answers
differ, the share of pairs won along the axis is held against the share in the whole set.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from curation.audit import kernel, tails
from curation.audit.corpus import Corpus
from curation.audit.features import gathered, prompts_alone
from curation.audit.flips import sums_by_prompt
from curation.audit.incidence import Incidence

PAIRS = 30_000
LEAST = 10  # pairs with a trigger that differ along the axis
ALPHA = 0.001  # the share of these tests in the chance of a false finding
FAR = 0.25  # how far the share must be from the whole set's
MOST = 20
KINDS = tuple(kernel.FAMILIES.index(f) for f in ("word", "phrase", "character"))
SAME = 0.5  # overlap of pairs from which two triggers are one


class Trigger(NamedTuple):
    """One trigger along one axis."""

    feature: int  # of `Prompts.found`
    axis: str
    usual: float  # share of pairs in which the chosen side is ahead along the axis, in the whole set
    pairs: np.ndarray  # int64: pairs with the trigger whose sides differ along the axis
    signs: np.ndarray  # int8: +1 where the chosen side is ahead
    z: float
    p: float
    p_adjusted: float


class Prompts(NamedTuple):
    """Which prompt has which feature: entries are all +1."""

    found: Incidence
    tried: int


def prompt_features(corpus: Corpus, workers: int) -> Prompts:
    """Words, phrases and signs of the prompts of the first pairs."""
    limit = corpus.whole_prompts(PAIRS)
    everything = np.full(1 << 16, 255, np.uint8)
    keys, found = gathered(corpus, everything, LEAST, workers, limit, prompts_alone)
    usual = np.flatnonzero((found.count <= limit // 2) & np.isin(keys & np.uint64(7), KINDS))
    return Prompts(found.part(usual), len(usual))


def triggers(prompts: Prompts, axes: Mapping[str, np.ndarray], groups: np.ndarray) -> list[Trigger]:
    """Triggers, strongest first, each along the axis that shows it best. `axes`: signs (M,) of each axis."""
    found, made = prompts.found, []
    tried = max(1, prompts.tried * len(axes))
    for name, signs in axes.items():
        known = (
            signs[: found.pairs_read]
            if len(signs) >= found.pairs_read
            else np.pad(signs, (0, found.pairs_read - len(signs)))
        )
        made += _along(name, known.astype(np.int64), found, groups, tried)
    made.sort(key=lambda t: (-abs(t.z), t.axis, t.feature))
    kept: list[Trigger] = []
    for t in made:
        if len(kept) < MOST and not any(_overlap(t.pairs, k.pairs) >= SAME for k in kept):
            kept.append(t)
    return kept


def _along(name: str, signs: np.ndarray, found: Incidence, groups: np.ndarray, tried: int) -> list[Trigger]:
    differs = signs != 0
    if differs.sum() < LEAST:
        return []
    usual = float((signs[differs] > 0).mean())
    at = signs[found.pairs]
    step = np.round(np.array([0, 1 - usual, -usual]) * 2**20).astype(np.int64)  # by sign: 0, +1, −1
    total, squares = np.zeros(found.size, np.int64), np.zeros(found.size)
    sums_by_prompt(found.start, found.pairs, step[at], groups, total, squares)
    place = np.minimum(found.start[:-1], len(at))
    n = np.add.reduceat(np.append(at != 0, False).astype(np.int64), place) * (found.count > 0)
    ahead = np.add.reduceat(np.append(at > 0, False).astype(np.int64), place) * (found.count > 0)
    variance = np.maximum(squares / 2.0**40, n * max(usual * (1 - usual), 1e-3))
    z = total / 2.0**20 / np.sqrt(np.maximum(variance, 1e-9))
    share = ahead / np.maximum(n, 1)
    need = tails.normal_inverse(ALPHA / 2 / tried)
    made = []
    for f in np.flatnonzero((n >= LEAST) & (np.abs(z) >= 0.9 * need) & (np.abs(share - usual) >= FAR)).tolist():
        exact = tails.binomial_test(int(ahead[f]), int(n[f]), min(max(usual, 1e-3), 1 - 1e-3))
        p = float(max(exact, 2 * float(tails.normal(abs(z[f])))))
        if p * tried <= ALPHA:
            mine = found.pairs[found.start[f] : found.start[f + 1]].astype(np.int64)
            mine = mine[signs[mine] != 0]
            made.append(Trigger(f, name, usual, mine, signs[mine].astype(np.int8), float(z[f]), p, min(1.0, p * tried)))
    return made


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return len(np.intersect1d(a, b, assume_unique=True)) / max(1, min(len(a), len(b)))
