"""From a corpus to a sparse table: which pair has which feature on which side alone.

    Corpus ─survey─> measures, buckets ─gathered─> Incidence (pair, feature, sign) of a sample ─sweep─> counts of the rest

The sample is as many first pairs as fit, which are whole prompts drawn at random (`corpus.py`); most sets are their own
sample. In larger ones the features that the sample does not rule out are counted in every pair. What is not read from
texts token by token (measures, lexicons, scripts, languages, columns of the file) is a `Signed` and joins the same table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from curation.audit import counting, kernel, measuring
from curation.audit.codes import codes
from curation.audit.corpus import Chunk, Corpus
from curation.audit.incidence import Counts, Incidence
from curation.audit.lexicons import LANGUAGES, marks
from curation.audit.text_store import Bounds, Texts

BUFFER = 1 << 18
Work = tuple[object, ...]


@dataclass(frozen=True)
class Survey:
    """What the first pass found."""

    measures: np.ndarray  # float32 (N, 2, len(measuring.MEASURES)): chosen, rejected
    hits: np.ndarray  # uint64 (N, 2): lexicons from bit 0, scripts from bit 32
    languages: np.ndarray  # uint8 (N, 2): index into LANGUAGES + 1; 0: none is likely
    buckets: np.ndarray  # uint8: occurrences by feature hash, up to 255
    cut: int  # texts longer than what is read of them


def survey(corpus: Corpus, workers: int, limit: int | None = None) -> Survey:
    """Measure the first `limit` texts and count all their features in buckets; the measures of the rest stay 0."""
    limit = corpus.pairs if limit is None else limit
    size = int(corpus.sizes[:limit].sum())
    buckets = [np.zeros(1 << bucket_bits(size), np.uint8) for _ in range(workers)]
    seen = Survey(
        np.zeros((corpus.pairs, 2, len(measuring.MEASURES)), np.float32), np.zeros((corpus.pairs, 2), np.uint64),
        np.zeros((corpus.pairs, 2), np.uint8), buckets[0], 0,
    )  # fmt: skip
    works, tables, lists = [workspace(corpus) for _ in range(workers)], tuple(codes()), tuple(marks())

    def one(chunk: Chunk, worker: int) -> int:
        at = slice(chunk.first, chunk.first + chunk.pairs)
        measuring.survey(
            chunk.texts, chunk.bounds, tables, lists, works[worker], buckets[worker], seen.measures[at], seen.hits[at],
            seen.languages[at],
        )  # fmt: skip
        return _cut(chunk)

    cut = sum(corpus.over(one, workers, limit))
    return replace(seen, buckets=_sum(buckets), cut=cut)


def _cut(chunk: Chunk) -> int:
    """Answers longer than what is read of them."""
    return sum(int((np.diff(b) > kernel.LONGEST).sum()) for b in chunk.bounds[1:])


class Swept(NamedTuple):
    """What is known of the pairs beyond the sample."""

    counts: Counts
    named: Incidence  # where the features asked for stand there; feature i is the i-th of them
    cut: int


def sweep(corpus: Corpus, seen: Survey, keys: np.ndarray, named: np.ndarray, start: int, workers: int) -> Swept:
    """Measure the pairs from `start` on into `seen`, count the features `keys` in them, and write down where those of
    `named` (bool) stand."""
    works, tables, lists = [workspace(corpus) for _ in range(workers)], tuple(codes()), tuple(marks())
    table, numbers, frequent = _known(keys)
    clustered = corpus.prompts < corpus.pairs
    counts = [np.zeros((len(keys), 2), np.int64) for _ in range(workers)]
    squares = [np.zeros((len(keys) if clustered else 0, 3), np.int64) for _ in range(workers)]
    cut = [0] * workers

    def one(chunk: Chunk, worker: int) -> list[tuple[np.ndarray, ...]]:
        known = (frequent, table, numbers, counts[worker], squares[worker], named)
        of = slice(chunk.first, chunk.first + chunk.pairs)
        cut[worker] += _cut(chunk)

        def read(at: int, found: tuple[np.ndarray, ...]) -> tuple[int, int]:
            n, after = counting.count_known(
                at, chunk.first, chunk.groups, chunk.texts, chunk.bounds, tables, lists, works[worker], known,
                seen.measures[of], seen.hits[of], seen.languages[of], found,
            )  # fmt: skip
            return int(n), int(after)

        return _all_entries(chunk.pairs, (np.int32, np.int32, np.int8), read, 2 * len(keys))

    parts = [p for chunk in corpus.over(one, workers, start=start) for p in chunk]
    total = np.sum(counts, axis=0)
    by_prompt = np.sum([s[:, 2] + s[:, 1] ** 2 for s in squares], axis=0) if clustered else total.sum(1)
    where = _by_feature(parts, len(keys), corpus.pairs, np.full((len(keys), 4), -1, np.int64))
    return Swept(Counts(keys, total[:, 0], total[:, 1], by_prompt), where.part(np.flatnonzero(named)), sum(cut))


def _all_entries(
    pairs: int, kinds: Sequence[type], read: Callable[[int, tuple[np.ndarray, ...]], tuple[int, int]], least: int = 0
) -> list[tuple[np.ndarray, ...]]:
    """The entries of a chunk, buffer by buffer. `read(at, buffer)` returns how many it wrote and where to go on; `least`:
    room it wants beyond what it writes."""
    at, size = 0, BUFFER + least
    parts: list[tuple[np.ndarray, ...]] = []
    while at < pairs:
        found: tuple[np.ndarray, ...] = tuple(np.empty(size, kind) for kind in kinds)
        n, after = read(at, found)
        size = size if after > at else 4 * size
        parts.append(tuple(column[:n].copy() for column in found))
        at = after
    return parts


def _by_feature(parts: list[tuple[np.ndarray, ...]], features: int, limit: int, example: np.ndarray) -> Incidence:
    """(pair, feature, sign) entries put together by feature."""
    size = np.zeros(features, np.int64)
    for _, feature, _ in parts:
        size += np.bincount(feature, minlength=features)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    pairs, signs, place = np.empty(start[-1], np.int32), np.empty(start[-1], np.int8), start[:-1].copy()
    for part in parts:
        counting.by_feature(*part, place, pairs, signs)
    return Incidence(start, pairs, signs, limit, example)


def _known(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An open table of keys, the number of each, and the bits of their buckets."""
    room = 1 << int(np.ceil(np.log2(max(1024, 4 * len(keys)))))
    table, numbers = np.zeros(room, np.uint64), np.zeros(room, np.int64)
    counting.enter(keys, table, numbers)
    frequent = np.zeros(min(1 << 22, 2 * room), np.uint8)
    counting.mark_buckets(keys, frequent)
    return table, numbers, frequent


def bucket_bits(size: int) -> int:
    """How many hash buckets (as a power of two) a text of `size` bytes wants: about one for every byte, 128 MiB at most."""
    return int(min(27, max(16, np.ceil(np.log2(max(1, size))))))


def _sum(buckets: list[np.ndarray]) -> np.ndarray:
    """Σ of the threads' counts, 255 where it is more."""
    total = buckets[0]
    for more in buckets[1:]:
        for at in range(0, len(total), 1 << 20):
            part = slice(at, at + (1 << 20))
            total[part] = np.minimum(total[part].astype(np.uint16) + more[part], 255).astype(np.uint8)
    return total


def workspace(corpus: Corpus) -> Work:
    """Arrays a thread works in, as large as the longest text wants."""
    longest = min(kernel.LONGEST, corpus.longest) + 1
    tokens = (
        np.zeros(longest, np.int64), np.zeros(longest, np.int64), np.zeros(longest, np.uint8), np.zeros(longest, np.uint64),
        np.zeros(longest, np.uint64),
    )  # fmt: skip
    notes = kernel.A_BYTE * longest + 64
    out = (np.zeros(notes, np.uint64), np.zeros(notes, np.uint64))
    words = int(measuring.WORDS) + 1
    seen = (
        np.zeros(words, np.uint32), np.zeros(words, np.uint32), np.zeros(len(LANGUAGES), np.int64), np.zeros(256, np.int64)
    )  # fmt: skip
    room = max(1024, 1 << int(np.ceil(np.log2(4 * notes + 2))))
    table = np.zeros((room, 3), np.uint64)
    return tokens, out, seen, table, np.zeros(2 * notes, np.int64), np.zeros(3, np.int64)


def both_sides(chunk: Chunk) -> tuple[Texts, Bounds]:
    """The texts as they are: features are of answers."""
    return chunk.texts, chunk.bounds


def prompts_alone(chunk: Chunk) -> tuple[Texts, Bounds]:
    """Prompts in the place of chosen answers and nothing on the other side: features are of prompts."""
    nothing, nowhere = np.zeros(8, np.uint8), np.zeros(chunk.pairs + 1, np.int64)
    return (nothing, chunk.texts[0], nothing), (nowhere, chunk.bounds[0], nowhere)


View = Callable[[Chunk], tuple[Texts, Bounds]]


def gathered(
    corpus: Corpus, buckets: np.ndarray, least: int, workers: int, limit: int | None = None, view: View = both_sides
) -> tuple[np.ndarray, Incidence]:
    """Every feature that stands on one side alone in at least `least` (≤ 255) of the first `limit` pairs: their keys,
    and where they stand. Exact: hash buckets only ever keep more."""
    limit = corpus.pairs if limit is None else limit
    works, tables = [workspace(corpus) for _ in range(workers)], tuple(codes())
    frequent = np.packbits(buckets >= least, bitorder="little")
    kinds = (np.uint64, np.int32, np.int8, np.uint64)

    def one(chunk: Chunk, worker: int) -> list[tuple[np.ndarray, ...]]:
        texts = view(chunk)
        return _all_entries(
            chunk.pairs,
            kinds,
            lambda at, found: counting.emit(at, chunk.first, *texts, tables, works[worker], frequent, found),
        )

    parts = [p for chunk in corpus.over(one, workers, limit) for p in chunk]
    keys, pairs, signs, where = (
        np.concatenate([np.empty(0, kind), *column]) for kind, column in zip(kinds, zip(*parts, strict=True), strict=True)
    ) if parts else (np.empty(0, kind) for kind in kinds)  # fmt: skip
    parts.clear()
    return _in_columns(keys, pairs, signs, where, least, limit)


def _in_columns(
    keys: np.ndarray, pairs: np.ndarray, signs: np.ndarray, where: np.ndarray, least: int, limit: int
) -> tuple[np.ndarray, Incidence]:
    """Entries put together by feature, features by rising key, rare ones left out."""
    index, size = _numbered(keys)
    first = np.zeros(size, np.int64)
    first[index[::-1]] = np.arange(len(index) - 1, -1, -1)
    count = np.bincount(index, minlength=size)
    kept = np.flatnonzero(count >= least)
    kept = kept[np.argsort(keys[first[kept]], kind="stable")]
    new = np.full(size, len(kept), np.int64)
    new[kept] = np.arange(len(kept))
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(count[kept])])
    entries = np.flatnonzero(count[index] >= least)
    out_pairs, out_signs = np.empty(start[-1], np.int32), np.empty(start[-1], np.int8)
    counting.by_feature(
        pairs[entries], new[index[entries]].astype(np.int32), signs[entries], start[:-1].copy(), out_pairs, out_signs
    )
    at = first[kept]
    spans = where[at]
    example = np.stack(
        [pairs[at], (signs[at] < 0).astype(np.int64), (spans >> np.uint64(32)).astype(np.int64),
         (spans & np.uint64(0xFFFFFFFF)).astype(np.int64)], 1,
    ) if len(at) else np.zeros((0, 4), np.int64)  # fmt: skip
    return keys[at], Incidence(start, out_pairs, out_signs, limit, example)


def _numbered(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Each key's number in the order of first appearance, and how many there are."""
    room, index = 1 << 16, np.empty(len(keys), np.int32)
    while True:
        size = counting.number(keys, np.zeros(room, np.uint64), np.full(room, -1, np.int32), index)
        if size >= 0:
            return index, int(size)
        room *= 4


def collect(corpus: Corpus, keys: np.ndarray, limit: int, workers: int, view: View = both_sides) -> Incidence:
    """Where the features `keys` (uint64) stand, in the first `limit` pairs. Feature i of the result is keys[i]."""
    works = [workspace(corpus) for _ in range(workers)]
    examples = [np.full((len(keys), 4), -1, np.int64) for _ in range(workers)]
    table, numbers, frequent = _known(keys)
    tables, kinds = tuple(codes()), (np.int32, np.int32, np.int8)

    def one(chunk: Chunk, worker: int) -> list[tuple[np.ndarray, ...]]:
        def read(at: int, found: tuple[np.ndarray, ...]) -> tuple[int, int]:
            n, after = counting.collect(
                at, chunk.first, *view(chunk), tables, works[worker], frequent, table, numbers, found, examples[worker]
            )
            return int(n), int(after)

        return _all_entries(chunk.pairs, kinds, read)

    parts = [p for chunk in corpus.over(one, workers, limit) for p in chunk]
    return _by_feature(parts, len(keys), limit, _first(examples))


def _first(examples: list[np.ndarray]) -> np.ndarray:
    """Of each feature the example of the earliest pair."""
    best = examples[0]
    for more in examples[1:]:
        earlier = (more[:, 0] >= 0) & ((best[:, 0] < 0) | (more[:, 0] < best[:, 0]))
        best[earlier] = more[earlier]
    return best
