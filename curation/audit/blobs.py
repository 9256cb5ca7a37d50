"""Whole texts, compiled: hashes of them, and moving them."""

import numpy as np
from numba import njit

from curation.audit.kernel import PRIME, SEED, mix


@njit(cache=True, nogil=True)
def hash_texts(text, bounds):
    """A 64-bit hash of every text, eight bytes at a time."""
    found = np.empty(len(bounds) - 1, np.uint64)
    for row in range(len(bounds) - 1):
        at, end = bounds[row], bounds[row + 1]
        value = SEED + np.uint64(end - at)
        while at + 8 <= end:
            word = np.uint64(0)
            for k in range(8):
                word = (word << np.uint64(8)) | np.uint64(text[at + k])
            value = mix((value ^ word) * PRIME)
            at += 8
        while at < end:
            value = (value ^ np.uint64(text[at])) * PRIME
            at += 1
        found[row] = mix(value)
    return found


@njit(cache=True, nogil=True)
def gather(text, bounds, rows, out):
    """The texts of `rows`, one after the other, into `out`."""
    n = 0
    for row in rows:
        size = bounds[row + 1] - bounds[row]
        out[n : n + size] = text[bounds[row] : bounds[row + 1]]
        n += size
