"""Where a corpus keeps its texts while it is read several times: in memory, or in a temporary file in parts.

A part holds the texts of all pairs whose prompt's hash begins alike, so that one part at a time is enough to go through
all pairs ordered by that hash.
"""

import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from curation.audit import blobs
from curation.errors import StorageError

IN_MEMORY = 192 * 2**20  # bytes of text
BUFFER = 64 * 2**20  # bytes of text in memory between two writes, once there is a file
PARTS = 256
Texts = tuple[np.ndarray, np.ndarray, np.ndarray]  # uint8: prompts, chosen answers, rejected answers
Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]  # int64 (rows + 1,)


@dataclass(frozen=True)
class Part:
    """Texts of some pairs and the number each arrived under."""

    texts: Texts
    bounds: Bounds
    arrivals: np.ndarray  # int64, rising

    def take(self, arrivals: np.ndarray) -> tuple[Texts, Bounds]:
        """Texts of these pairs, one after the other in the order given."""
        at = np.searchsorted(self.arrivals, arrivals)
        gathered = [gather(t, b, at) for t, b in zip(self.texts, self.bounds, strict=True)]
        (t0, b0), (t1, b1), (t2, b2) = gathered
        return (t0, t1, t2), (b0, b1, b2)


def gather(text: np.ndarray, bounds: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The texts of `rows` in that order, eight bytes more, and their bounds."""
    new = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(bounds[rows + 1] - bounds[rows], out=new[1:])
    out = np.zeros(int(new[-1]) + 8, np.uint8)  # texts are read eight bytes at a time
    blobs.gather(text, bounds, rows, out)
    return out, new


@dataclass
class TextStore:
    """Takes texts in, then gives them out part by part."""

    in_memory: int = IN_MEMORY
    _held: list[tuple[Texts, Bounds, np.ndarray]] = field(default_factory=list)  # with the prompt hashes
    _held_bytes: int = 0
    _arrived: int = 0
    _file: "IO[bytes] | None" = None
    _flushes: list[tuple[int, int, np.ndarray, np.ndarray]] = field(default_factory=list)
    _writer: ThreadPoolExecutor | None = None  # writes one buffer while the next fills
    _writing: "Future[None] | None" = None

    def add(self, texts: Texts, bounds: Bounds, prompt_hash: np.ndarray) -> None:
        """Take rows in. A text of row i is text[bounds[i] : bounds[i + 1]]."""
        self._held.append((texts, bounds, prompt_hash))
        self._held_bytes += int(sum(b[-1] - b[0] for b in bounds))
        if self._held_bytes > (BUFFER if self._file else self.in_memory):
            self._start_writing()

    def _start_writing(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="thresher-audit-")  # noqa: SIM115 (read until the corpus is gone)
            self._writer = ThreadPoolExecutor(1)
        if self._writing is not None:
            self._writing.result()
        held, self._held, self._held_bytes = self._held, [], 0
        assert self._writer is not None
        self._writing = self._writer.submit(self._flush, held)

    @property
    def parts(self) -> int:
        """How many parts there are; without a file there is one."""
        return PARTS if self._file else 1

    def finish(self) -> None:
        """No more rows."""
        if self._file and self._writer and self._writing:
            self._writing.result()
            self._flush(self._held)
            self._held = []
            self._writer.shutdown()
            self._writer = self._writing = None
        elif len(self._held) > 1:
            self._held = [_together(self._held)]

    def part(self, number: int) -> Part:
        """One part; a row's part is the first byte of its prompt hash."""
        if not self._file:
            held, bounds, hashes = self._held[0]
            return Part(held, bounds, np.arange(len(hashes)))
        found = [self._read(flush, number) for flush in self._flushes]
        texts = [np.concatenate([f[0][which] for f in found] + [np.zeros(1, np.uint8)]) for which in range(3)]
        sizes = [np.concatenate([f[1][:, which] for f in found]) for which in range(3)]
        ends = [np.concatenate([np.zeros(1, np.int64), np.cumsum(s)]) for s in sizes]
        arrivals = np.concatenate([f[2] for f in found])
        return Part((texts[0], texts[1], texts[2]), (ends[0], ends[1], ends[2]), arrivals)

    def _flush(self, held: list[tuple[Texts, Bounds, np.ndarray]]) -> None:
        """Write rows part by part, each part's three columns one after the other."""
        if not held:
            return
        assert self._file is not None
        texts, bounds, hashes = _together(held)
        part = (hashes >> np.uint64(56)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        rows = np.searchsorted(part[order], np.arange(PARTS + 1))
        offset = self._file.seek(0, 2)
        sizes = np.stack([np.diff(b)[order] for b in bounds], 1)
        for p in range(PARTS):
            mine = order[rows[p] : rows[p + 1]]
            for text, b in zip(texts, bounds, strict=True):
                out, new = gather(text, b, mine)
                self._file.write(out[: new[-1]].data)
        self._file.flush()  # what reads it goes past Python's buffer
        self._flushes.append((offset, self._arrived, rows, np.column_stack([order, sizes])))
        self._arrived += len(hashes)

    def _read(
        self, flush: tuple[int, int, np.ndarray, np.ndarray], number: int
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """(texts, sizes (rows, 3), arrivals) of one part in one flush."""
        assert self._file is not None
        offset, base, rows, table = flush
        first, last = rows[number], rows[number + 1]
        offset += int(table[:first, 1:].sum())
        texts = []
        for which in range(3):
            size = int(table[first:last, 1 + which].sum())
            texts.append(_read_at(self._file, offset, size))
            offset += size
        return texts, table[first:last, 1:], table[first:last, 0] + base


def _together(held: list[tuple[Texts, Bounds, np.ndarray]]) -> tuple[Texts, Bounds, np.ndarray]:
    """Several batches as one."""
    texts, bounds = [], []
    for which in range(3):
        cut = [t[which][b[which][0] : b[which][-1]] for t, b, _ in held]
        sizes = [np.diff(b[which]) for _, b, _ in held]
        texts.append(np.concatenate([*cut, np.zeros(1, np.uint8)]))
        bounds.append(np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(sizes))]))
    hashes = np.concatenate([h for _, _, h in held])
    return (texts[0], texts[1], texts[2]), (bounds[0], bounds[1], bounds[2]), hashes


def _read_at(file: "IO[bytes]", offset: int, size: int) -> np.ndarray:
    """Bytes of a file without moving its position: threads read side by side."""
    out = np.empty(size, np.uint8)
    done = 0
    while done < size:
        more = os.preadv(file.fileno(), [out[done:].data], offset + done)
        if not more:
            raise StorageError(
                "audit", "a temporary file cut short", f"{size} bytes at {offset}", "free disk space, try again"
            )
        done += more
    return out
