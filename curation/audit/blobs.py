"""Whole texts, compiled: hashes of them, and moving them."""

import numpy as np
from numba import njit

from curation.audit.eights import load, store
from curation.audit.kernel import PRIME, SEED, mix


@njit(cache=True, nogil=True)
def hash_texts(text, bounds):
    """A 64-bit hash of every text, eight bytes at a time."""
    found = np.empty(len(bounds) - 1, np.uint64)
    for row in range(len(bounds) - 1):
        at, end = bounds[row], bounds[row + 1]
        value = SEED + np.uint64(end - at)
        while at + 8 <= end:
            value = mix((value ^ load(text, at)) * PRIME)
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
        at, end = bounds[row], bounds[row + 1]
        while at + 8 <= end:
            store(out, n, load(text, at))
            at += 8
            n += 8
        while at < end:
            out[n] = text[at]
            at += 1
            n += 1


@njit(cache=True, nogil=True)
def blank(text, bounds):
    """bool (texts,): those of nothing but ASCII white space."""
    found = np.ones(len(bounds) - 1, np.bool_)
    for row in range(len(bounds) - 1):
        for i in range(bounds[row], bounds[row + 1]):
            if text[i] > 32:
                found[row] = False
                break
    return found
