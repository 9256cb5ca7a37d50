"""From preference rows to a sparse table: which pair has which feature on which side alone.

    dpo rows ──texts──> Texts (bytes, ordered by prompt) ──incidence──> Incidence (pair, feature, sign)

Texts are taken as they stand: nothing is stripped, lower-cased or normalised before features are read from it.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.schema import content_id

AT_ONCE = 8192  # pairs of one call into the kernel
BUCKETS = 1 << 22


@dataclass(frozen=True)
class Texts:
    """N pairs ordered by prompt and content: the order of rows in a file changes nothing."""

    ids: list[str]
    sides: tuple[np.ndarray, np.ndarray]  # uint8: all chosen answers, all rejected ones
    bounds: tuple[np.ndarray, np.ndarray]  # int64 (N + 1,)
    groups: np.ndarray  # int32 (N,), from 0, rising: the prompt of each pair
    numbers: dict[str, np.ndarray]  # float64 (N, 2): chosen, rejected

    @property
    def pairs(self) -> int:
        return len(self.ids)

    @property
    def prompts(self) -> int:
        return int(self.groups[-1]) + 1 if len(self.groups) else 0

    def text(self, pair: int, side: int) -> bytes:
        return self.sides[side][self.bounds[side][pair] : self.bounds[side][pair + 1]].tobytes()


def texts(rows: pa.Table) -> Texts:
    """The last turns of rows of schema.DPO. Pairs of one prompt stand together."""
    answers = [
        pa.array([turns[-1]["content"] for turns in rows[side].to_pylist()], pa.large_string())
        for side in ("chosen", "rejected")
    ]
    prompts = rows["prompt_id"].to_pylist()
    given = zip(prompts, rows["pair_id"].to_pylist(), *(a.to_pylist() for a in answers), strict=True)
    keys = [(prompt, pair or content_id(a, b), a, b) for prompt, pair, a, b in given]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    answers = [a.take(pa.array(order, pa.int64())) for a in answers]
    _, groups = np.unique(np.array([prompts[i] for i in order], dtype=object), return_inverse=True)
    return Texts(
        ids=[keys[i][1] for i in order],
        sides=(_bytes(answers[0]), _bytes(answers[1])),
        bounds=(_offsets(answers[0]), _offsets(answers[1])),
        groups=groups.astype(np.int32),
        numbers=_numbers(answers),
    )


def _bytes(texts: pa.Array) -> np.ndarray:
    data = texts.buffers()[2]
    return np.frombuffer(data, np.uint8) if data and data.size else np.zeros(1, np.uint8)


def _offsets(texts: pa.Array) -> np.ndarray:
    return np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]


def _numbers(answers: list[pa.Array]) -> dict[str, np.ndarray]:
    measures = {
        "characters": pc.utf8_length,
        "words": lambda a: pc.count_substring_regex(a, r"\w+"),
        "lines": lambda a: pc.count_substring(a, "\n"),
        "sentences": lambda a: pc.count_substring_regex(a, r"[.!?。!?](\s|$)|[。！？]"),
        "list items": lambda a: pc.count_substring_regex(a, r"(^|\n)\s*([-*+•]|\d+[.)])\s"),
        "bold": lambda a: pc.count_substring(a, "**"),
        "digits": lambda a: pc.count_substring_regex(a, r"\d"),
        "capitals": lambda a: pc.count_substring_regex(a, r"[A-Z]"),
    }
    return {name: np.stack([np.asarray(f(a), float) for a in answers], 1) for name, f in measures.items()}


@dataclass(frozen=True)
class Incidence:
    """E entries in the order of pairs. `signs` is +1 where the chosen side alone has the feature, −1 the rejected."""

    pairs: np.ndarray  # int32 (E,)
    features: np.ndarray  # int32 (E,)
    signs: np.ndarray  # int8 (E,)
    keys: np.ndarray  # uint64 (F,): the hash of each feature, the same in every set
    count: np.ndarray  # int64 (F,): entries of each feature
    family: np.ndarray  # uint8 (F,): index into FAMILIES
    example: np.ndarray  # int64 (F, 4): pair, side, start, end of its first occurrence

    @property
    def size(self) -> int:
        return len(self.count)


def incidence(texts: Texts, least: int) -> Incidence:
    """All features that stand on one side alone in at least `least` pairs. Exact: hashing only ever keeps more."""
    from curation import audit_kernel as kernel

    longest = int(max((np.diff(b).max(initial=0) for b in texts.bounds), default=0))
    room = 1 << int(np.ceil(np.log2(16 * longest + 256)))
    slots = (
        np.zeros(room, np.uint64), np.zeros(room, np.int32), np.zeros(room, np.uint8), np.zeros((room, 2), np.int32),
        np.zeros(room, np.int32),
    )  # fmt: skip
    ends = [np.zeros(longest + 1, np.int64) for _ in range(2)]
    tokens = (*ends, *(np.zeros(longest + 1, np.uint64) for _ in range(2)))
    state, buckets = np.zeros(3, np.int64), np.zeros(BUCKETS, np.int32)
    shared = (texts.sides, texts.bounds, kernel.code_tables(), state, slots, tokens, buckets)
    kernel.count_buckets(0, texts.pairs, *shared)
    size = max(1 << 16, 64 * AT_ONCE)
    parts = []
    for first in range(0, texts.pairs, AT_ONCE):
        last = min(first + AT_ONCE, texts.pairs)
        while True:
            found = (
                np.empty(size, np.uint64),
                *(np.empty(size, kind) for kind in (np.int32, np.int8)),
                np.empty((size, 2), np.int64),
            )
            n = kernel.collect(first, last, *shared, least, found)
            if n >= 0:
                break
            size *= 2
        parts.append(tuple(column[:n].copy() for column in found))
    keys, pairs, signs, spans = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _kept(keys, pairs, signs, spans, least)


def _kept(keys: np.ndarray, pairs: np.ndarray, signs: np.ndarray, spans: np.ndarray, least: int) -> Incidence:
    index, size = _numbered(keys)
    count = np.bincount(index, minlength=size)
    first = np.empty(size, np.int64)
    first[index[::-1]] = np.arange(len(index) - 1, -1, -1)
    keep = count >= least
    new = np.cumsum(keep) - 1
    entries = keep[index]
    at = first[keep]
    example = np.stack([pairs[at], (signs[at] < 0).astype(np.int64), spans[at, 0], spans[at, 1]], 1)
    return Incidence(
        pairs[entries], new[index[entries]].astype(np.int32), signs[entries], keys[at], count[keep],
        (keys[at] & np.uint64(7)).astype(np.uint8), example,
    )  # fmt: skip


def _numbered(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Each key's number in the order of first appearance, and how many there are."""
    from curation.audit_kernel import number

    room, index = 1 << 16, np.empty(len(keys), np.int32)
    while True:
        size = number(keys, np.zeros(room, np.uint64), np.full(room, -1, np.int32), index)
        if size >= 0:
            return index, int(size)
        room *= 4
