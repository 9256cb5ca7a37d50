"""The second and third pass over the texts, compiled: what stands on one side of a pair only.

Of a pair only the features of exactly one side are kept: whatever both have, a topic word of the prompt say, says nothing
about the preference. `tally` counts those whose bucket can matter; `collect` writes down, for chosen features, which pair
has them. Sums are of whole numbers, so that neither chunks nor threads change a bit.
"""

import numpy as np
from numba import njit

from curation.audit.kernel import SHIFT, look_up, note_all, span


@njit(cache=True, nogil=True)
def read_pair(row, texts, bounds, codes, work, frequent):
    """Fill the pair's table with the features whose bucket is marked in `frequent` (a bit each); how many there are.

    A slot of the table: key; stamp of the pair and mask (1 chosen, 2 rejected); start and end in the text. `used` lists
    the slots in use; `state`: the stamp, how many slots are in use, the mask of the part of the table in use, which is
    as large as the pair needs, so that it stays in cache.
    """
    tokens, out, _, table, used, state = work
    state[0] += 1
    state[1] = 0
    for side in range(2):
        at, end = span(bounds[side + 1], row)
        n, _ = note_all(texts[side + 1], at, end, codes, tokens, out)
        kept = keep_frequent(n, out, frequent)
        room = np.int64(1023)
        while room < 2 * (kept + state[1]):
            room = 2 * room + 1
        if side == 0:
            state[2] = room
        elif room > state[2]:
            enlarge(state, table, used, room)
        put(kept, out, at, np.uint64(side + 1), table, used, state)
    return state[1]


@njit(cache=True, nogil=True)
def keep_frequent(n, out, frequent):
    """Move the features whose bucket is marked to the front; how many. Without a branch, so that the reads overlap."""
    keys, where = out
    mask, kept = 8 * len(frequent) - 1, 0
    for k in range(n):
        key = keys[k]
        keys[kept], where[kept] = key, where[k]
        bucket = np.int64(key >> np.uint64(3)) & mask
        kept += (frequent[bucket >> 3] >> np.uint8(bucket & 7)) & np.uint8(1)
    return kept


@njit(cache=True, nogil=True)
def put(n, out, base, side, table, used, state):
    """Enter features of one side; spans from the beginning of the text at `base`."""
    keys, where = out
    stamp = np.uint64(state[0]) << np.uint64(2)
    from_base = (np.uint64(base) << SHIFT) | np.uint64(base)
    in_use, mask = state[1], state[2]
    for k in range(n):
        key = keys[k]
        slot = np.int64(key >> np.uint64(20)) & mask
        while table[slot, 1] >= stamp and table[slot, 0] != key:
            slot = (slot + 1) & mask
        if table[slot, 1] < stamp:
            table[slot, 0], table[slot, 1], table[slot, 2] = key, stamp, where[k] - from_base
            used[in_use] = slot
            in_use += 1
        table[slot, 1] |= side
    state[1] = in_use


@njit(cache=True, nogil=True)
def enlarge(state, table, used, room):
    """The first side's features at their places in a larger part of the table."""
    n = state[1]
    held = np.empty((n, 2), np.uint64)
    for u in range(n):
        held[u, 0], held[u, 1] = table[used[u], 0], table[used[u], 2]
    state[0] += 1
    state[2] = room
    stamp = np.uint64(state[0]) << np.uint64(2)
    for u in range(n):
        slot = np.int64(held[u, 0] >> np.uint64(20)) & room
        while table[slot, 1] >= stamp:
            slot = (slot + 1) & room
        table[slot, 0], table[slot, 1], table[slot, 2] = held[u, 0], stamp | np.uint64(1), held[u, 1]
        used[u] = slot


@njit(cache=True, nogil=True)
def one_sided(n, table, used):
    """Keep in `used` what stands on one side alone; how many."""
    kept = 0
    for u in range(n):
        used[kept] = used[u]
        kept += table[used[u], 1] & np.uint64(3) != 3
    return kept


@njit(cache=True, nogil=True)
def tally(begin, groups, texts, bounds, codes, work, frequent, counts, squares):
    """Pass 2: per feature the pairs in which the chosen or the rejected side alone has it.

    `counts` is an open table (slots, 2) of key and chosen << 32 | rejected. Returns the pair at which it was half full,
    to go on from with a larger one; the last + 1 at the end. `squares` is empty where no prompt has two pairs; else
    (slots, 3): prompt last seen, its sum of signs, Σ sum².
    """
    table, used = work[3], work[4]
    filled, clustered = np.int64(0), len(squares) > 0
    for slot in range(len(counts)):
        filled += counts[slot, 0] != 0
    for p in range(begin, len(groups)):
        if 2 * filled > len(counts):
            return p
        n = one_sided(read_pair(p, texts, bounds, codes, work, frequent), table, used)
        fetched = np.uint64(0)
        for u in range(n):  # so that what the next loop needs is on its way
            fetched |= counts[np.int64(table[used[u], 0] >> np.uint64(20)) & (len(counts) - 1), 1]
        work[5][0] += np.int64(fetched & np.uint64(0))
        for u in range(n):
            side, key = table[used[u], 1] & np.uint64(3), table[used[u], 0]
            slot = np.int64(key >> np.uint64(20)) & (len(counts) - 1)
            while counts[slot, 0] != 0 and counts[slot, 0] != key:
                slot = (slot + 1) & (len(counts) - 1)
            filled += counts[slot, 0] == 0
            counts[slot, 0] = key
            counts[slot, 1] += np.uint64(1) << (SHIFT * (np.uint64(2) - side))
            if clustered:
                if squares[slot, 0] != groups[p] + 1:
                    squares[slot, 2] += squares[slot, 1] * squares[slot, 1]
                    squares[slot, 0], squares[slot, 1] = groups[p] + 1, 0
                squares[slot, 1] += 3 - 2 * np.int64(side)
    return len(groups)


@njit(cache=True, nogil=True)
def enter(keys, table, numbers):
    """Write each key and its number into an empty table."""
    for k in range(len(keys)):
        slot = look_up(table, keys[k])
        table[slot], numbers[slot] = keys[k], k


@njit(cache=True, nogil=True)
def mark_buckets(keys, frequent):
    """Set the bit of each key's bucket."""
    for k in range(len(keys)):
        bucket = np.int64(keys[k] >> np.uint64(3)) & (8 * len(frequent) - 1)
        frequent[bucket >> 3] |= np.uint8(1) << np.uint8(bucket & 7)


@njit(cache=True, nogil=True)
def collect(begin, first, texts, bounds, codes, work, frequent, keys, numbers, found, example):
    """Pass 3: (pair, feature, sign) of every one-sided occurrence of the features in `keys`. `example` keeps of each
    feature the first pair, its side and the span in its text; pair −1: none yet.

    Returns (entries, pair to go on from): the pair whose entries might not fit into `found`, or the last + 1.
    """
    table, used = work[3], work[4]
    pairs, features, signs = found
    n = 0
    for p in range(begin, len(bounds[0]) - 1):
        many = one_sided(read_pair(p, texts, bounds, codes, work, frequent), table, used)
        if n + many > len(pairs):
            return n, p
        for u in range(many):
            side = np.int64(table[used[u], 1] & np.uint64(3))
            slot = look_up(keys, table[used[u], 0])
            if keys[slot] == 0:
                continue
            f = numbers[slot]
            pairs[n], features[n], signs[n] = first + p, f, 3 - 2 * side
            n += 1
            if example[f, 0] < 0 or first + p < example[f, 0]:
                example[f, 0], example[f, 1] = first + p, side - 1
                example[f, 2] = np.int64(table[used[u], 2] >> SHIFT)
                example[f, 3] = np.int64(table[used[u], 2] & np.uint64(0xFFFFFFFF))
    return n, len(bounds[0]) - 1


@njit(cache=True, nogil=True)
def by_feature(pairs, features, signs, place, out_pairs, out_signs):
    """Entries in the order of features, those of a feature in the order they came. `place`: where each feature begins;
    it is moved to where each ends."""
    for e in range(len(pairs)):
        at = place[features[e]]
        out_pairs[at], out_signs[at] = pairs[e], signs[e]
        place[features[e]] = at + 1
