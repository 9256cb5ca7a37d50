"""Preference pairs as the audit reads them: texts as they stand, in an order that content alone decides.

    batches of texts ──Builder──> Corpus ──chunks──> Chunk, Chunk, …

Pairs are ordered by hash of prompt, then of both answers, so that the order of rows in a file changes nothing, all pairs
of a prompt stand together, and the first M pairs are a random sample of whole prompts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa

from curation.audit import blobs, kernel
from curation.audit.text_store import Bounds, Texts, TextStore

CHUNK = 4 * 2**20  # bytes of text of a chunk, about
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """Rows on their way into a corpus: three columns of texts, where each row stood, and what else is known of it."""

    texts: tuple[pa.Array, pa.Array, pa.Array]  # large_string, no nulls: prompt, chosen, rejected
    rows: np.ndarray  # int64: place in the input
    pair_ids: pa.Array  # string, null where none was given
    prompt_ids: pa.Array  # string, null where none was given
    columns: Mapping[str, pa.Array] = field(default_factory=dict)  # string, of any name


@dataclass(frozen=True)
class Chunk:
    """Pairs `first` … of a corpus, their texts one after the other."""

    first: int
    groups: np.ndarray  # int64 (m,)
    texts: Texts
    bounds: Bounds

    @property
    def pairs(self) -> int:
        return len(self.groups)

    def text(self, pair: int, which: int) -> bytes:
        """Text `which` (0 prompt, 1 chosen, 2 rejected) of pair `pair` of the corpus."""
        row = pair - self.first
        return self.texts[which][self.bounds[which][row] : self.bounds[which][row + 1]].tobytes()


@dataclass(frozen=True)
class Corpus:
    """N pairs of P prompts in canonical order."""

    groups: np.ndarray  # int64 (N,), rising from 0: the prompt of each pair
    hashes: np.ndarray  # uint64 (N,): of each pair's content
    answers: np.ndarray  # uint64 (N,): of each pair's two answers
    rows: np.ndarray  # int64 (N,): place in the input
    sizes: np.ndarray  # int64 (N,): bytes of the three texts together
    longest: int  # bytes of the longest text
    columns: Mapping[str, pa.DictionaryArray]  # what else is known of each pair
    repeated: np.ndarray  # int64: places in the input of rows that stood before
    pair_ids: pa.Array  # string (N,), null where none was given
    prompt_ids: pa.Array
    _arrivals: np.ndarray  # int64 (N,)
    _parts: np.ndarray  # int64: where the pairs of each part of the store begin
    _store: TextStore

    @property
    def pairs(self) -> int:
        return len(self.groups)

    @cached_property
    def prompts(self) -> int:
        return int(self.groups[-1]) + 1 if self.pairs else 0

    @cached_property
    def prompt_start(self) -> np.ndarray:
        """int64 (P + 1,): where each prompt's pairs begin."""
        return np.searchsorted(self.groups, np.arange(self.prompts + 1))

    def sample(self, size: int) -> int:
        """How many of the first pairs are whole prompts and about `size` bytes of text."""
        return self.whole_prompts(max(1, int(np.searchsorted(np.cumsum(self.sizes), size))))

    def whole_prompts(self, most: int) -> int:
        """How many of the first pairs are whole prompts and at most `most` (the first prompt at the least)."""
        if most >= self.pairs:
            return self.pairs
        at = int(np.searchsorted(self.prompt_start, most, "right")) - 1
        return int(self.prompt_start[max(1, at)])

    def chunks(self, limit: int | None = None, start: int = 0) -> Iterator[Chunk]:
        """Pairs `start` to `limit` (all of them), chunk by chunk; a prompt is never cut. Both are where a prompt ends."""
        limit = self.pairs if limit is None else limit
        for p in range(len(self._parts) - 1):
            first, last = max(start, int(self._parts[p])), min(limit, int(self._parts[p + 1]))
            if first >= last:
                continue
            part = self._store.part(p)
            total = np.cumsum(self.sizes[first:last])
            at = first
            while at < last:
                base = int(total[at - first - 1]) if at > first else 0
                end = min(last, first + int(np.searchsorted(total, base + CHUNK)) + 1)
                end = min(last, int(self.prompt_start[self.groups[end - 1] + 1]))
                yield Chunk(at, self.groups[at:end], *part.take(self._arrivals[at:end]))
                at = end

    def texts_of(self, pairs: Sequence[int]) -> dict[int, tuple[bytes, bytes, bytes]]:
        """Prompt, chosen and rejected answer of some pairs."""
        found = {}
        wanted = np.unique(np.asarray(pairs, np.int64))
        for p in range(len(self._parts) - 1):
            mine = wanted[(wanted >= self._parts[p]) & (wanted < self._parts[p + 1])]
            if len(mine):
                texts, bounds = self._store.part(p).take(self._arrivals[mine])
                (a, b, c), ends = (t.tobytes() for t in texts), [n.tolist() for n in bounds]
                for i, pair in enumerate(mine.tolist()):
                    (a0, a1), (b0, b1), (c0, c1) = ((n[i], n[i + 1]) for n in ends)
                    found[pair] = (a[a0:a1], b[b0:b1], c[c0:c1])
        return found

    def content(self) -> str:
        """A hash of all answers, in whatever order, 16 hex digits: two readings of the same pairs have the same."""
        return f"{int(self.answers.sum(dtype=np.uint64)):016x}"

    def over(
        self, work: Callable[[Chunk, int], Result], workers: int, limit: int | None = None, start: int = 0
    ) -> list[Result]:
        """`work(chunk, worker)` of every chunk, in the order of chunks, `workers` at a time in threads of this process."""
        chunks = self.chunks(limit, start)
        if workers <= 1:
            return [work(chunk, 0) for chunk in chunks]
        free = list(range(workers))

        def one(chunk: Chunk) -> Result:
            worker = free.pop()
            try:
                return work(chunk, worker)
            finally:
                free.append(worker)

        with ThreadPoolExecutor(workers) as pool:
            found, ahead = [], []
            for chunk in chunks:
                ahead.append(pool.submit(one, chunk))
                if len(ahead) > 2 * workers:
                    found.append(ahead.pop(0).result())
            return found + [f.result() for f in ahead]


class Builder:
    """Batches in, a corpus out. Rows that stood before are left out."""

    def __init__(self, in_memory: int | None = None) -> None:
        self._store = TextStore() if in_memory is None else TextStore(in_memory)
        self._batches: list[Batch] = []  # without their texts
        self._hashes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._sizes: list[np.ndarray] = []
        self._longest = 0

    def add(self, batch: Batch) -> None:
        a, b, c = batch.texts
        texts, bounds = (bytes_of(a), bytes_of(b), bytes_of(c)), (offsets_of(a), offsets_of(b), offsets_of(c))
        prompt, chosen, rejected = (blobs.hash_texts(t, b) for t, b in zip(texts, bounds, strict=True))
        given = booleans(batch.prompt_ids.is_valid())
        if given.any():
            ids = batch.prompt_ids.fill_null("").cast(pa.large_string())
            prompt = np.where(given, blobs.hash_texts(bytes_of(ids), offsets_of(ids)), prompt)
        alone = _mixed(np.zeros(len(prompt), np.uint64), chosen, rejected)
        with np.errstate(over="ignore"):  # mixed once more, so that a sum knows which answers stand together
            alone = ((alone ^ (alone >> kernel.SHIFT)) * kernel.MIX) ^ alone
        self._hashes.append((prompt, _mixed(prompt, chosen, rejected), alone))
        self._sizes.append(np.sum([np.diff(b) for b in bounds], axis=0))
        self._longest = max(self._longest, *(int(np.diff(b).max(initial=0)) for b in bounds))
        self._store.add(texts, bounds, prompt)
        nothing = pa.nulls(0, pa.large_string())
        self._batches.append(
            Batch((nothing, nothing, nothing), batch.rows, batch.pair_ids, batch.prompt_ids, batch.columns)
        )

    def finish(self) -> Corpus:
        self._store.finish()
        prompt = _joined([h[0] for h in self._hashes], np.uint64)
        hashes = _joined([h[1] for h in self._hashes], np.uint64)
        rows, sizes = _joined([b.rows for b in self._batches], np.int64), _joined(self._sizes, np.int64)
        order = np.lexsort((rows, hashes, prompt))
        fresh = np.ones(len(order), bool)
        fresh[1:] = (hashes[order][1:] != hashes[order][:-1]) | (prompt[order][1:] != prompt[order][:-1])
        repeated = np.sort(rows[order[~fresh]])
        order = order[fresh]
        new_prompt = np.ones(len(order), bool)
        new_prompt[1:] = prompt[order][1:] != prompt[order][:-1]
        part = (
            (prompt[order] >> np.uint64(56)).astype(np.int64)
            if self._store.parts > 1
            else np.zeros(len(order), np.int64)
        )
        return Corpus(
            groups=np.cumsum(new_prompt) - 1, hashes=hashes[order],
            answers=_joined([h[2] for h in self._hashes], np.uint64)[order], rows=rows[order], sizes=sizes[order],
            longest=self._longest, columns=self._columns(order), repeated=repeated,
            pair_ids=_taken([b.pair_ids for b in self._batches], order),
            prompt_ids=_taken([b.prompt_ids for b in self._batches], order), _arrivals=order,
            _parts=np.searchsorted(part, np.arange(self._store.parts + 1)), _store=self._store,
        )  # fmt: skip

    def _columns(self, order: np.ndarray) -> dict[str, pa.DictionaryArray]:
        names = dict.fromkeys(name for b in self._batches for name in b.columns)
        found = {}
        for name in names:
            parts = [b.columns.get(name, pa.nulls(len(b.rows), pa.string())) for b in self._batches]
            whole = pa.chunked_array([p.cast(pa.string()).dictionary_encode() for p in parts]).unify_dictionaries()
            found[name] = whole.combine_chunks().take(whole_numbers(order)) if len(parts) else whole
            if isinstance(found[name], pa.ChunkedArray):
                found[name] = found[name].combine_chunks()
        return found


def _mixed(prompt: np.ndarray, chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        found: np.ndarray = (prompt * kernel.MIX + chosen) * kernel.MIX + rejected
    return found


def _joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)


def _taken(parts: list[pa.Array], order: np.ndarray) -> pa.Array:
    whole = pa.chunked_array([p.cast(pa.string()) for p in parts], pa.string()).take(whole_numbers(order))
    return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], pa.string())


def bytes_of(texts: pa.Array) -> np.ndarray:
    data = texts.buffers()[2]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.frombuffer(b"\0", np.uint8)


def offsets_of(texts: pa.Array) -> np.ndarray:
    if not len(texts):
        return np.zeros(1, np.int64)
    return np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]


def booleans(array: pa.Array) -> np.ndarray:
    """A boolean array without nulls; Arrow's own way would import pandas first."""
    bits = np.unpackbits(np.frombuffer(array.buffers()[1], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(bool)


def codes_of(column: pa.DictionaryArray) -> np.ndarray:
    """int64: each row's place in the column's dictionary, -1 where it has no value."""
    index = column.indices.cast(pa.int64())
    values = np.frombuffer(index.buffers()[1], np.int64)[index.offset : index.offset + len(index)]
    return np.where(booleans(index.is_valid()), values, -1) if index.null_count else values


def whole_numbers(values: np.ndarray) -> pa.Array:
    """int64 values as Arrow's; its own way would import pandas first."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values, np.int64))])
