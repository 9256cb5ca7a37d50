"""Two words that say something only together: neither alone is one-sided, both in one answer are.

Of the commonest words of the first pairs every combination is counted at once, by products of 0/1 matrices: in how many
pairs the chosen answer alone has both, in how many the rejected one. What one of the words tells alone is no finding here.
"""

from typing import NamedTuple

import numpy as np

from curation.audit import counting, nearby, tails
from curation.audit.codes import codes
from curation.audit.corpus import Chunk, Corpus
from curation.audit.features import workspace
from curation.audit.statistics import SELF_NORMALISED

WORDS = 768  # the commonest one-sided ones
PAIRS = 12_000
ALPHA = 0.001  # the share of these tests in the chance of a false finding
BEYOND = 2.0  # a combination's z must exceed that of either word by so much
MOST = 20


class Together(NamedTuple):
    """One combination, and the pairs that have it on one side alone."""

    words: tuple[int, int]  # of the features given
    pairs: np.ndarray  # int64
    signs: np.ndarray  # int8
    squares: int
    z: float
    p: float
    p_adjusted: float


def together(corpus: Corpus, keys: np.ndarray, z_alone: np.ndarray, workers: int) -> list[Together]:
    """Combinations of the words `keys` (uint64, family word), strongest first; `z_alone`: of each word by itself."""
    limit = corpus.whole_prompts(PAIRS)
    has = _presence(corpus, keys, limit, workers)
    chosen, rejected = (has[:, side].astype(np.float32) for side in range(2))
    in_both = chosen * rejected
    shared = in_both.T @ in_both
    b, c = chosen.T @ chosen - shared, rejected.T @ rejected - shared
    n = b + c
    z = np.triu((b - c) / np.sqrt(np.maximum(n, 1)), 1)
    tried = max(1, len(keys) * (len(keys) - 1) // 2)
    need = tails.normal_inverse(ALPHA / 2 / tried)
    alone = np.maximum(np.abs(z_alone)[:, None], np.abs(z_alone)[None, :])
    candidates = np.argwhere((np.abs(z) >= 0.9 * need) & (np.abs(z) >= alone + BEYOND))
    order = np.argsort(-np.abs(z[tuple(candidates.T)]), kind="stable")[: 4 * MOST]
    made = [_tested((int(i), int(j)), has, corpus.groups, tried) for i, j in candidates[order]]
    # Prompts with many pairs count as fewer witnesses: only now are both z's of one kind.
    return [t for t in made if t.p_adjusted <= ALPHA and abs(t.z) >= alone[t.words] + BEYOND][:MOST]


def _presence(corpus: Corpus, keys: np.ndarray, limit: int, workers: int) -> np.ndarray:
    """bool (limit, 2, words)."""
    works, tables = [workspace(corpus) for _ in range(workers)], tuple(codes())
    room = 1 << int(np.ceil(np.log2(max(64, 4 * len(keys)))))
    table, numbers = np.zeros(room, np.uint64), np.zeros(room, np.int64)
    counting.enter(keys, table, numbers)
    found = np.zeros((limit, 2, len(keys)), bool)

    def one(chunk: Chunk, worker: int) -> None:
        at = slice(chunk.first, chunk.first + chunk.pairs)
        nearby.presence(chunk.texts, chunk.bounds, tables, works[worker], table, numbers, found[at])

    corpus.over(one, workers, limit)
    return found


def _tested(words: tuple[int, int], has: np.ndarray, groups: np.ndarray, tried: int) -> Together:
    """The combination tested as any feature is: signs summed within a prompt first."""
    both = has[:, :, words[0]] & has[:, :, words[1]]
    signs = both[:, 0].astype(np.int8) - both[:, 1].astype(np.int8)
    where = np.flatnonzero(signs)
    sums = np.bincount(groups[where], signs[where], minlength=1)
    squares, net, n = int((sums**2).sum()), int(signs.sum()), len(where)
    z = net / max(1, squares) ** 0.5
    exact = 2 * float(tails.binomial((n + abs(net)) // 2, n, 0.5))
    p = float(min(1.0, exact if squares == n else 2 * SELF_NORMALISED * float(tails.normal(abs(z)))))
    return Together(words, where, signs[where], squares, float(z), p, min(1.0, p * tried))
