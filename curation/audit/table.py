"""Every feature of a corpus, counted and tested, and where the ones at hand stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from curation.audit import kernel
from curation.audit.corpus import Corpus
from curation.audit.features import FAMILIES, Counts, Incidence, Signed, collect, counts_of, tally, with_signed
from curation.audit.statistics import ALPHA, GROUPS, Tests, test, with_flips

ENTRIES = 14_000_000  # of the incidence; where there are more, it is of fewer pairs
MOST = 400_000  # features of it then
WORDS = [kernel.FAMILIES.index(f) for f in ("word", "phrase", "cased")]


@dataclass(frozen=True)
class Table:
    """F features: those read from texts, then those of whole pairs."""

    keys: np.ndarray  # uint64: hashes of those read from texts
    signed: Sequence[Signed]
    family: np.ndarray  # int64 (F,): index into FAMILIES
    tests: Tests
    found: Incidence
    complete: bool  # `found` has all pairs

    @property
    def of_texts(self) -> int:
        return len(self.keys)


def table_of(corpus: Corpus, buckets: np.ndarray, signed: Sequence[Signed], workers: int) -> Table:
    """Count, test and collect. What is left uncounted could not have been significant, whatever its signs."""
    least = 8 if corpus.pairs < 20_000 else 12 if corpus.pairs < 200_000 else 20
    while True:
        counts = tally(corpus, buckets, least, workers)
        tests, family = _tests(counts, signed, corpus)
        if least <= 8 or all(2.0 ** (1 - least) > ALPHA / GROUPS / t.tried for t in tests.thresholds):
            break
        least = 8
    keep, limit, total = np.arange(len(counts.keys)), corpus.pairs, int(counts.count.sum())
    if total > ENTRIES:
        limit = corpus.whole_prompts(max(1, int(corpus.pairs * ENTRIES / total)))
        order = np.lexsort((-counts.count, ~tests.significant[: len(keep)]))
        keep = np.sort(order[:MOST])
        kept = np.concatenate([keep, np.arange(len(counts.keys), len(counts.keys) + len(signed))])
        tests, family = _of(tests, kept), family[kept]
    found = with_signed(collect(corpus, counts.keys[keep], limit, workers), signed)
    return Table(counts.keys[keep], signed, family, with_flips(tests, found, corpus), found, limit == corpus.pairs)


def _tests(counts: Counts, signed: Sequence[Signed], corpus: Corpus) -> tuple[Tests, np.ndarray]:
    sums = counts_of(signed, corpus)
    columns = [np.concatenate(c) for c in zip((counts.chosen, counts.rejected, counts.squares), sums, strict=True)]
    family = np.concatenate([counts.family.astype(np.int64), [FAMILIES.index(s.family) for s in signed]]).astype(
        np.int64
    )
    return test(columns[0], columns[1], columns[2], (~np.isin(family, WORDS)).astype(np.uint8)), family


def _of(tests: Tests, kept: np.ndarray) -> Tests:
    names = ("chosen", "rejected", "squares", "group", "z", "p", "p_adjusted", "q")
    return replace(tests, **{n: getattr(tests, n)[kept] for n in names})
