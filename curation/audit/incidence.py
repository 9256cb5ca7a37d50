"""Which pair has which feature on which side alone: a sparse table, feature by feature, and counts of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.audit import kernel
from curation.audit.corpus import Corpus

FAMILIES = (*kernel.FAMILIES, "number", "lexicon", "script", "language", "column", "token", "together", "trigger")


class Signed(NamedTuple):
    """A feature of whole pairs: +1 where the chosen side has it (or has more), −1 the rejected, 0 where both are alike."""

    family: str
    name: str
    signs: np.ndarray  # int8 (N,)


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
