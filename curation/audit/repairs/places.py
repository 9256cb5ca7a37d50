"""Where a feature stands in one text, by the same compiled reading that counts it."""

from collections.abc import Sequence

import numpy as np

from curation.audit import kernel
from curation.audit.codes import codes

Span = tuple[int, int]  # bytes


class Reader:
    """Reads texts one by one and says which of `keys` they have, and where."""

    def __init__(self, keys: Sequence[np.uint64]) -> None:
        self.keys = np.array(keys, np.uint64)
        self._tables = tuple(codes())
        self._room = 0

    def has(self, text: str) -> np.ndarray:
        """bool (keys,)"""
        found, _ = self._read(text)
        return np.isin(self.keys, found)

    def spans(self, text: str, key: np.uint64) -> list[Span]:
        """Places of one feature, in order and apart from each other."""
        found, where = self._read(text)
        listed = sorted((int(w >> np.uint64(32)), int(w & np.uint64(0xFFFFFFFF))) for w in where[found == key])
        apart: list[Span] = []
        for start, end in listed:
            if not apart or start >= apart[-1][1]:
                apart.append((start, end))
        return apart

    def _read(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        raw = np.frombuffer(text.encode() or b"\0", np.uint8)
        size = min(len(raw), kernel.LONGEST) if text else 0
        if size + 1 > self._room:
            self._room = 2 * size + 1024
            self._tokens = tuple(np.zeros(self._room, k) for k in (np.int64, np.int64, np.uint8, np.uint64, np.uint64))
            notes = kernel.A_BYTE * self._room + 64
            self._out = (np.zeros(notes, np.uint64), np.zeros(notes, np.uint64))
        n, _ = kernel.note_all(raw, 0, size, self._tables, self._tokens, self._out)
        return self._out[0][:n], self._out[1][:n]
