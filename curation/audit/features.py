"""From a corpus to a sparse table: which pair has which feature on which side alone.

    Corpus ─survey─> measures, buckets ─tally─> counts of every feature ─choose─> ─collect─> Incidence (pair, feature, sign)

Counts are of all pairs, however many; the table is of as many first pairs as fit, which are whole prompts drawn at
random (`corpus.py`). What is not read from texts token by token (measures, lexicons, scripts, languages, columns of
the file) is a `Signed` of its own and joins the same table.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.audit import counting, kernel, measuring
from curation.audit.codes import codes
from curation.audit.corpus import Chunk, Corpus
from curation.audit.lexicons import LANGUAGES, marks
from curation.audit.text_store import Bounds, Texts

FAMILIES = (*kernel.FAMILIES, "number", "lexicon", "script", "language", "column", "token", "together", "trigger")
ENTRIES = 40_000_000  # of one incidence, about 17 bytes each
BUFFER = 1 << 18
Work = tuple[object, ...]


class Signed(NamedTuple):
    """A feature of whole pairs: +1 where the chosen side has it (or has more), −1 the rejected, 0 where both are alike."""

    family: str
    name: str
    signs: np.ndarray  # int8 (N,)


@dataclass(frozen=True)
class Survey:
    """What the first pass found."""

    measures: np.ndarray  # float32 (N, 2, len(measuring.MEASURES)): chosen, rejected
    hits: np.ndarray  # uint64 (N, 2): lexicons from bit 0, scripts from bit 32
    languages: np.ndarray  # uint8 (N, 2): index into LANGUAGES + 1; 0: none is likely
    buckets: np.ndarray  # uint8: occurrences by feature hash, up to 255
    cut: int  # texts longer than what is read of them


@dataclass(frozen=True)
class Counts:
    """Every feature of the texts that stands on one side alone in enough pairs, by rising hash."""

    keys: np.ndarray  # uint64 (F,)
    chosen: np.ndarray  # int64 (F,): pairs in which the chosen side alone has it
    rejected: np.ndarray
    squares: np.ndarray  # int64 (F,): Σ over prompts of (sum of signs)²

    @property
    def count(self) -> np.ndarray:
        found: np.ndarray = self.chosen + self.rejected
        return found

    @property
    def family(self) -> np.ndarray:
        found: np.ndarray = (self.keys & np.uint64(7)).astype(np.uint8)
        return found


@dataclass(frozen=True)
class Incidence:
    """Which of the first `pairs_read` pairs of a corpus have a feature on one side alone, feature by feature."""

    start: np.ndarray  # int64 (F + 1,): where the entries of each feature begin
    pairs: np.ndarray  # int32 (E,), rising within a feature
    signs: np.ndarray  # int8 (E,): +1 where the chosen side alone has the feature, −1 the rejected
    pairs_read: int
    example: np.ndarray  # int64 (F, 4): pair, side, start, end (bytes) of the first occurrence; pair −1: it has no text

    @property
    def size(self) -> int:
        return len(self.start) - 1

    @property
    def count(self) -> np.ndarray:
        return np.diff(self.start)

    @staticmethod
    def one(pairs: np.ndarray, signs: np.ndarray, pairs_read: int) -> "Incidence":
        """Of a single feature."""
        start = np.array([0, len(pairs)], np.int64)
        return Incidence(
            start, pairs.astype(np.int32), signs.astype(np.int8), pairs_read, np.full((1, 4), -1, np.int64)
        )

    def part(self, features: np.ndarray) -> "Incidence":
        """Some of the features, in that order."""
        size = self.count[features]
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
        at = np.repeat(self.start[features] - start[:-1], size) + np.arange(start[-1])
        return Incidence(start, self.pairs[at], self.signs[at], self.pairs_read, self.example[features])

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Pairs and signs of one feature."""
        at = slice(self.start[feature], self.start[feature + 1])
        return self.pairs[at], self.signs[at]


def survey(corpus: Corpus, workers: int) -> Survey:
    """Measure all texts and count all features in buckets."""
    size = int(corpus.sizes.sum())
    buckets = [np.zeros(1 << bucket_bits(size), np.uint8) for _ in range(workers)]
    works = [workspace(corpus) for _ in range(workers)]
    measures = np.zeros((corpus.pairs, 2, len(measuring.MEASURES)), np.float32)
    hits, languages = np.zeros((corpus.pairs, 2), np.uint64), np.zeros((corpus.pairs, 2), np.uint8)
    tables, lists = tuple(codes()), tuple(marks())

    def one(chunk: Chunk, worker: int) -> int:
        at = slice(chunk.first, chunk.first + chunk.pairs)
        measuring.survey(
            chunk.texts,
            chunk.bounds,
            tables,
            lists,
            works[worker],
            buckets[worker],
            measures[at],
            hits[at],
            languages[at],
        )
        return sum(int((np.diff(b) > kernel.LONGEST).sum()) for b in chunk.bounds[1:])

    cut = sum(corpus.over(one, workers))
    return Survey(measures, hits, languages, _sum(buckets), cut)


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


def tally(
    corpus: Corpus, buckets: np.ndarray, least: int, workers: int, limit: int | None = None, view: View = both_sides
) -> Counts:
    """Count every feature that stands on one side alone in at least `least` pairs (≤ 255). Exact."""
    works = [workspace(corpus) for _ in range(workers)]
    tables = tuple(codes())
    frequent = np.packbits(buckets >= least, bitorder="little")
    clustered = corpus.prompts < corpus.pairs
    held = [_Table.empty(1 << 16, clustered) for _ in range(workers)]

    def one(chunk: Chunk, worker: int) -> None:
        at = 0
        while True:
            table = held[worker]
            at = counting.tally(at, chunk.groups, *view(chunk), tables, works[worker], frequent, *table)
            if at == chunk.pairs:
                return
            held[worker] = table.larger()

    corpus.over(one, workers, limit)
    return _together(held, least)


class _Table(NamedTuple):
    counts: np.ndarray
    squares: np.ndarray

    @staticmethod
    def empty(room: int, clustered: bool) -> "_Table":
        return _Table(np.zeros((room, 2), np.uint64), np.zeros((room if clustered else 0, 3), np.int64))

    def larger(self) -> "_Table":
        """The same in four times the room."""
        new = _Table.empty(4 * len(self.counts), len(self.squares) > 0)
        used = np.flatnonzero(self.counts[:, 0])
        keys, numbers = np.zeros(len(new.counts), np.uint64), np.zeros(len(new.counts), np.int64)
        counting.enter(self.counts[used, 0], keys, numbers)
        filled = np.flatnonzero(keys)
        at = used[numbers[filled]]
        new.counts[filled] = self.counts[at]
        if len(new.squares):
            new.squares[filled] = self.squares[at]
        return new

    def listed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Keys, counts of both sides and sums of squares of what is in use, the last prompt's added."""
        used = np.flatnonzero(self.counts[:, 0])
        both = self.counts[used, 1]
        chosen, rejected = (both >> np.uint64(32)).astype(np.int64), (both & np.uint64(0xFFFFFFFF)).astype(np.int64)
        squares = self.squares[used, 2] + self.squares[used, 1] ** 2 if len(self.squares) else chosen + rejected
        return self.counts[used, 0], chosen, rejected, squares


def _together(held: list[_Table], least: int) -> Counts:
    keys, *sums = (np.concatenate(c) for c in zip(*(h.listed() for h in held), strict=True))
    held.clear()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]]))
    if not len(first):
        return Counts(*(np.zeros(0, k) for k in (np.uint64, np.int64, np.int64, np.int64)))
    chosen, rejected, squares = (np.add.reduceat(c[order], first) for c in sums)
    keep = chosen + rejected >= least
    return Counts(keys[first][keep], chosen[keep], rejected[keep], squares[keep])


def collect(corpus: Corpus, keys: np.ndarray, limit: int, workers: int, view: View = both_sides) -> Incidence:
    """Where the features `keys` (uint64) stand, in the first `limit` pairs. Feature i of the result is keys[i]."""
    works = [workspace(corpus) for _ in range(workers)]
    examples = [np.full((len(keys), 4), -1, np.int64) for _ in range(workers)]
    room = 1 << int(np.ceil(np.log2(max(1024, 4 * len(keys)))))
    table, numbers = np.zeros(room, np.uint64), np.zeros(room, np.int64)
    counting.enter(keys, table, numbers)
    frequent = np.zeros(min(1 << 22, 2 * room), np.uint8)
    counting.mark_buckets(keys, frequent)
    tables, kinds = tuple(codes()), (np.int32, np.int32, np.int8)

    def one(chunk: Chunk, worker: int) -> list[tuple[np.ndarray, ...]]:
        at, parts, size = 0, [], BUFFER
        while at < chunk.pairs:
            found = tuple(np.empty(size, kind) for kind in kinds)
            n, after = counting.collect(
                at, chunk.first, *view(chunk), tables, works[worker], frequent, table, numbers, found,
                examples[worker],
            )  # fmt: skip
            size = size if after > at else 4 * size
            parts.append(tuple(column[:n].copy() for column in found))
            at = after
        return parts

    parts = [p for chunk in corpus.over(one, workers, limit) for p in chunk]
    size = np.zeros(len(keys), np.int64)
    for _, features, _ in parts:
        size += np.bincount(features, minlength=len(keys))
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    pairs, signs, place = np.empty(start[-1], np.int32), np.empty(start[-1], np.int8), start[:-1].copy()
    for part in parts:
        counting.by_feature(*part, place, pairs, signs)
    return Incidence(start, pairs, signs, limit, _first(examples))


def _first(examples: list[np.ndarray]) -> np.ndarray:
    """Of each feature the example of the earliest pair."""
    best = examples[0]
    for more in examples[1:]:
        earlier = (more[:, 0] >= 0) & ((best[:, 0] < 0) | (more[:, 0] < best[:, 0]))
        best[earlier] = more[earlier]
    return best


def with_signed(found: Incidence, signed: Sequence[Signed]) -> Incidence:
    """The same and, behind its features, those of whole pairs."""
    at = [np.flatnonzero(one.signs[: found.pairs_read]) for one in signed]
    size = np.cumsum([0, *(len(a) for a in at)], dtype=np.int64)
    return Incidence(
        np.concatenate([found.start, found.start[-1] + size[1:]]),
        np.concatenate([found.pairs, *(a.astype(np.int32) for a in at)]),
        np.concatenate([found.signs, *(one.signs[a] for one, a in zip(signed, at, strict=True))]),
        found.pairs_read, np.concatenate([found.example, np.full((len(signed), 4), -1, np.int64)]),
    )  # fmt: skip


def counts_of(signed: Iterable[Signed], corpus: Corpus) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(chosen, rejected, Σ over prompts of sum²) of features of whole pairs."""
    chosen, rejected, squares = [], [], []
    for one in signed:
        signs = one.signs.astype(np.int64)
        chosen.append(int((signs > 0).sum()))
        rejected.append(int((signs < 0).sum()))
        squares.append(int((np.add.reduceat(signs, corpus.prompt_start[:-1]) ** 2).sum()))
    return np.array(chosen, np.int64), np.array(rejected, np.int64), np.array(squares, np.int64)
