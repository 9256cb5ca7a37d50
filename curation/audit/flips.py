"""Sign flips by whole prompts, compiled: how large the largest |z| of all features grows by luck (max-T).

Sixty-four flips at a time. A feature's sum under a flip is T − 2A: T the sum of |D| over its prompts, A that of the
prompts the flip turns against it. The A of 64 flips are counted in bit planes, plane k holding bit k of each count, so
that adding a prompt to all of them is a few machine words; flips worth a look are found by comparing planes with a bound.
"""

import numpy as np
from numba import njit

PLANES = 40
ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def max_z(start, pairs, signs, groups, lots, group_of, least_z, best):
    """best (groups of features, flips): the largest |z| under each flip, `least_z` where none is larger.

    `lots` (prompts, flips / 64) uint64: which flips swap the prompt; `group_of` (F,): which row of `best` a feature is
    for; −1: none.
    """
    words = lots.shape[1]
    planes = np.zeros((words, PLANES), np.uint64)
    for f in range(len(start) - 1):
        if group_of[f] < 0 or start[f] == start[f + 1]:
            continue
        total, squares, used = add_prompts(start[f], start[f + 1], pairs, signs, groups, lots, planes)
        if squares > 0:
            look(total, squares, planes, used, least_z, best[group_of[f]])
        planes[:, : used + 1] = 0


@njit(cache=True, nogil=True)
def add_prompts(at, end, pairs, signs, groups, lots, planes):
    """Add every prompt of a feature to the planes; (Σ|D|, ΣD², planes used)."""
    total, squares, used = np.int64(0), np.int64(0), 0
    while at < end:
        group, d = groups[pairs[at]], np.int64(0)
        while at < end and groups[pairs[at]] == group:
            d += signs[at]
            at += 1
        size = abs(d)
        total += size
        squares += size * size
        for w in range(lots.shape[1]):
            turned = lots[group, w] if d > 0 else ~lots[group, w]
            bit, left = 0, size
            while left:
                if left & 1:
                    carry, k = turned, bit
                    while carry:
                        carry, planes[w, k] = planes[w, k] & carry, planes[w, k] ^ carry
                        k += 1
                    used = max(used, k)
                left >>= 1
                bit += 1
    return total, squares, used


@njit(cache=True, nogil=True)
def look(total, squares, planes, used, least_z, best):
    """Raise `best` where a flip's |z| is larger. Only sums beyond `least_z` are read out of the planes."""
    scale = 1 / np.sqrt(squares)
    far = np.int64(np.ceil(least_z / scale))
    low, high = (total - far) // 2, (total + far + 1) // 2  # A ≤ low or A ≥ high
    for w in range(len(planes)):
        above, below = ~np.uint64(0), ~np.uint64(0)  # still equal, from the top
        is_above, is_below = np.uint64(0), np.uint64(0)
        for k in range(used, -1, -1):
            plane = planes[w, k]
            if (high >> k) & 1:
                above &= plane
            else:
                is_above |= above & plane
                above &= ~plane
            if low >= 0:
                if (low >> k) & 1:
                    is_below |= below & ~plane
                    below &= plane
                else:
                    below &= ~plane
        if high >> (used + 1):
            is_above, above = np.uint64(0), np.uint64(0)
        if low >= 0 and low >> (used + 1):
            is_below, below = ~np.uint64(0), np.uint64(0)
        found = is_above | above
        if low >= 0:
            found |= is_below | below
        flip = 0
        while found:
            if found & ONE:
                count = np.int64(0)
                for k in range(used + 1):
                    count |= np.int64((planes[w, k] >> np.uint64(flip)) & ONE) << k
                z = abs(total - 2 * count) * scale
                best[64 * w + flip] = max(best[64 * w + flip], z)
            found >>= ONE
            flip += 1


@njit(cache=True, nogil=True)
def sums_by_prompt(start, pairs, values, groups, sums, squares):
    """Per feature Σ of whole-numbered values and Σ over prompts of (sum within the prompt)²."""
    for f in range(len(start) - 1):
        at = start[f]
        while at < start[f + 1]:
            group, d = groups[pairs[at]], np.int64(0)
            while at < start[f + 1] and groups[pairs[at]] == group:
                d += values[at]
                at += 1
            sums[f] += d
            squares[f] += np.float64(d) * np.float64(d)


@njit(cache=True, nogil=True)
def count_by_bin(start, pairs, signs, bins, counts):
    """counts (F, bins, 2) gains each feature's pairs by bin: on the chosen, on the rejected side."""
    for f in range(len(start) - 1):
        for e in range(start[f], start[f + 1]):
            counts[f, bins[pairs[e]], 0 if signs[e] > 0 else 1] += 1
