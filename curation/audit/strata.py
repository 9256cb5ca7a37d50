"""Kinds of prompts: does a feature say the same whatever was asked?

A column of the data (source, category, task) where there is one; else prompts are put together by their words: k-means
on hashed, idf-weighted bags of words, started and run the same way every time.
"""

from typing import NamedTuple

import numpy as np

from curation.audit import nearby, tails
from curation.audit.codes import codes
from curation.audit.corpus import Chunk, Corpus, codes_of
from curation.audit.features import workspace
from curation.audit.signed import strata_columns

CLUSTERS = 8
DIMENSIONS = 256
ROUNDS = 12
LEARNED_FROM = 20_000  # prompts
LEAST = 5  # one-sided pairs of a stratum that is looked at


class Strata(NamedTuple):
    """Which stratum (0 …) each of the first M pairs is in; −1: none."""

    name: str  # the column, or "prompt words"
    of: np.ndarray  # int64 (M,)
    kinds: int


class Heterogeneity(NamedTuple):
    """How differently strata see a feature."""

    i_squared: float  # share of the variation between strata that luck does not explain (Higgins & Thompson 2002)
    p: float
    opposed: bool  # a stratum is on the other side beyond luck
    strata: int


def strata(corpus: Corpus, limit: int, workers: int) -> Strata:
    """Strata of the first `limit` pairs."""
    named = strata_columns(corpus.columns)
    if named:
        column = corpus.columns[named[0]]
        index = codes_of(column)[:limit]
        return Strata(named[0], index, len(column.dictionary))
    of_prompt = clusters(bags(corpus, limit, workers))
    return Strata("prompt words", of_prompt[corpus.groups[:limit]], CLUSTERS)


def bags(corpus: Corpus, limit: int, workers: int) -> np.ndarray:
    """float32 (prompts, DIMENSIONS): tf-idf of each prompt of the first `limit` pairs, of length 1."""
    works, tables = [workspace(corpus) for _ in range(workers)], tuple(codes())

    def one(chunk: Chunk, worker: int) -> np.ndarray:
        found = np.zeros((chunk.pairs, DIMENSIONS), np.float32)
        nearby.bags(chunk.texts[0], chunk.bounds[0], tables, works[worker], found)
        new: np.ndarray = found[np.concatenate([np.ones(1, bool), np.diff(chunk.groups) > 0])]
        return new

    counts = np.concatenate(corpus.over(one, workers, limit))
    idf = np.log((1 + len(counts)) / (1 + (counts > 0).sum(0)))
    weighted = np.log1p(counts) * idf.astype(np.float32)
    length = np.sqrt((weighted**2).sum(1, keepdims=True))
    made: np.ndarray = weighted / np.maximum(length, 1e-9)
    return made


def clusters(points: np.ndarray) -> np.ndarray:
    """k-means by cosine: int64 (points,). Starts from points far from each other, the first farthest from the mean."""
    learned = points[:LEARNED_FROM]
    nearest = learned @ learned.mean(0)
    centres = []
    for _ in range(min(CLUSTERS, len(learned))):
        centres.append(learned[int(np.argmin(nearest))])
        nearest = np.maximum(nearest, learned @ centres[-1])
    middle = np.stack(centres)
    for _ in range(ROUNDS):
        of = np.argmax(learned @ middle.T, 1)
        sums = np.stack([learned[of == c].sum(0) for c in range(len(middle))])
        middle = sums / np.maximum(1e-9, np.sqrt((sums**2).sum(1, keepdims=True)))
    found: np.ndarray = np.argmax(points @ middle.T, 1)
    return found


def heterogeneity(pairs: np.ndarray, signs: np.ndarray, strata: Strata) -> Heterogeneity:
    """Cochran's Q of a feature's purity over strata."""
    where = strata.of[pairs]
    known = where >= 0
    n = np.bincount(where[known], minlength=strata.kinds)
    b = np.bincount(where[known], signs[known] > 0, minlength=strata.kinds)
    enough = n >= LEAST
    n, b = n[enough], b[enough]
    if len(n) < 2:
        return Heterogeneity(0.0, 1.0, False, len(n))
    share = b.sum() / n.sum()
    expected = max(share * (1 - share), 1 / (4 * n.sum()))
    q = float(((b - n * share) ** 2 / (n * expected)).sum())
    against = 2 * b - n if share < 0.5 else n - 2 * b
    opposed = bool((against > 3.3 * np.sqrt(n)).any())
    free = len(n) - 1
    return Heterogeneity(max(0.0, (q - free) / q) if q > 0 else 0.0, tails.chi_square(q, free), opposed, len(n))
