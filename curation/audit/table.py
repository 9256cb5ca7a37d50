"""Every feature of a corpus, counted and tested, and where the ones at hand stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from curation.audit import kernel
from curation.audit.corpus import Corpus
from curation.audit.features import Survey, gathered, sweep
from curation.audit.flips import sums_by_prompt
from curation.audit.incidence import FAMILIES, Counts, Incidence, Signed, counts_of, with_signed
from curation.audit.signed import signed_features
from curation.audit.statistics import LEAST, SCREEN, Tests, may_be_grave, test, with_flips

SAMPLE = 68 * 2**20  # bytes of text up to which every feature is looked at in every pair
OF_LARGER = 0.7  # of that many bytes, in larger sets
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
    whole: Mapping[
        int, tuple[np.ndarray, np.ndarray]
    ]  # of features that may be grave: pairs and signs in the whole set

    @property
    def of_texts(self) -> int:
        return len(self.keys)


def table_of(
    corpus: Corpus, seen: Survey, limit: int, workers: int, more: Sequence[Signed] = ()
) -> tuple[Table, Survey]:
    """Gather, sweep and test. `seen`: the survey of the first `limit` pairs; it returns with the measures of all."""
    keys, found = gathered(corpus, seen.buckets, LEAST, workers, limit)
    seen = replace(seen, buckets=np.zeros(0, np.uint8))
    tried = len(keys)
    counts = _counts(keys, found, corpus)
    whole: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    if limit < corpus.pairs:
        net = np.abs(counts.chosen - counts.rejected)
        grave = may_be_grave(counts.count, net, limit)
        kept = np.flatnonzero(grave | (net >= SCREEN * np.sqrt(np.maximum(1, counts.squares))))
        keys, found, counts, likely = keys[kept], found.part(kept), _of_counts(counts, kept), grave[kept]
        rest = sweep(corpus, seen, keys, likely, limit, workers)
        seen = replace(seen, cut=seen.cut + rest.cut)
        counts = Counts(
            keys, counts.chosen + rest.counts.chosen, counts.rejected + rest.counts.rejected,
            counts.squares + rest.counts.squares,
        )  # fmt: skip
        for i, f in enumerate(np.flatnonzero(likely).tolist()):
            (near, signs), (beyond, more_signs) = found.of(f), rest.named.of(i)
            whole[f] = np.concatenate([near, beyond]), np.concatenate([signs, more_signs])
    signed = [*signed_features(corpus, seen), *more]
    tests, family = _tests(counts, signed, corpus, tried - len(keys))
    found = with_signed(found, signed)
    return Table(keys, signed, family, with_flips(tests, found, corpus), found, limit == corpus.pairs, whole), seen


def _of_counts(counts: Counts, kept: np.ndarray) -> Counts:
    return Counts(counts.keys[kept], counts.chosen[kept], counts.rejected[kept], counts.squares[kept])


def _counts(keys: np.ndarray, found: Incidence, corpus: Corpus) -> Counts:
    sums, squares = np.zeros(found.size, np.int64), np.zeros(found.size)
    sums_by_prompt(found.start, found.pairs, found.signs.astype(np.int64), corpus.groups, sums, squares)
    chosen = (found.count + sums) // 2
    return Counts(keys, chosen, found.count - chosen, squares.astype(np.int64))


def _tests(counts: Counts, signed: Sequence[Signed], corpus: Corpus, screened: int) -> tuple[Tests, np.ndarray]:
    """`screened`: features the sample ruled out; they were tried all the same, and count among the words."""
    sums = counts_of(signed, corpus)
    columns = [np.concatenate(c) for c in zip((counts.chosen, counts.rejected, counts.squares), sums, strict=True)]
    family = np.concatenate([counts.family.astype(np.int64), [FAMILIES.index(s.family) for s in signed]]).astype(
        np.int64
    )
    return test(columns[0], columns[1], columns[2], (~np.isin(family, WORDS)).astype(np.uint8), screened), family
