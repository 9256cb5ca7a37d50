"""The later passes over the texts, compiled: what stands on one side of a pair only.

Of a pair only the features of exactly one side are kept: whatever both have, a topic word of the prompt say, says nothing
about the preference. `emit` writes down all whose bucket can matter, `collect` chosen ones, `count_known` counts. Sums
are of whole numbers, so that neither chunks nor threads change a bit.
"""

import numpy as np
from numba import njit

from curation.audit.kernel import SHIFT, look_up, note_all, span
from curation.audit.measuring import forget, measure, read_prompt


@njit(cache=True, nogil=True)
def read_pair(row, texts, bounds, codes, work, frequent):
    """Fill the pair's table with the features whose bucket is marked in `frequent` (a bit each); how many there are.

    A slot of the table: key; stamp of the pair and mask (1 chosen, 2 rejected); start and end in the text. `used` lists
    the slots in use; `state`: the stamp, how many slots are in use, the mask of the part of the table in use, which is
    as large as the pair needs, so that it stays in cache.
    """
    tokens, out, state = work[0], work[1], work[5]
    state[0] += 1
    state[1] = 0
    for side in range(2):
        at, end = span(bounds[side + 1], row)
        n, _ = note_all(texts[side + 1], at, end, codes, tokens, out)
        add_side(side, n, at, work, frequent)
    return state[1]


@njit(cache=True, nogil=True)
def add_side(side, n, at, work, frequent):
    """Enter the n features noted of one side, the text of which begins at `at`."""
    _, out, _, table, used, state = work
    kept = keep_frequent(n, out, frequent)
    room = np.int64(1023)
    while room < 2 * (kept + state[1]):
        room = 2 * room + 1
    if side == 0:
        state[2] = room
    elif room > state[2]:
        enlarge(state, table, used, room)
    put(kept, out, at, np.uint64(side + 1), table, used, state)


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
def emit(begin, first, texts, bounds, codes, work, frequent, found):
    """(key, pair, sign, span in its text) of every one-sided feature whose bucket is marked.

    Returns (entries, pair to go on from): the pair whose entries might not fit into `found`, or the last + 1.
    """
    table, used = work[3], work[4]
    keys, pairs, signs, where = found
    n = 0
    for p in range(begin, len(bounds[0]) - 1):
        many = one_sided(read_pair(p, texts, bounds, codes, work, frequent), table, used)
        if n + many > len(keys):
            return n, p
        for u in range(many):
            keys[n], pairs[n] = table[used[u], 0], first + p
            signs[n] = 3 - 2 * np.int64(table[used[u], 1] & np.uint64(3))
            where[n] = table[used[u], 2]
            n += 1
    return n, len(bounds[0]) - 1


@njit(cache=True, nogil=True)
def number(keys, table, ids, index):
    """`index`: each key's number in the order of first appearance; returns how many, or -1 when the table is too small.
    `ids` is -1 where the table is free."""
    n = 0
    for e in range(len(keys)):
        slot = np.int64(keys[e] >> np.uint64(20)) & (len(table) - 1)
        while ids[slot] >= 0 and table[slot] != keys[e]:
            slot = (slot + 1) & (len(table) - 1)
        if ids[slot] < 0:
            if 2 * n >= len(table):
                return -1
            table[slot], ids[slot] = keys[e], n
            n += 1
        index[e] = ids[slot]
    return n


@njit(cache=True, nogil=True)
def count_known(begin, first, groups, texts, bounds, codes, marks, work, known, measures, hits, languages, found):
    """Measure pairs as `survey` does, and count known features in them.

    `known`: marked buckets, open table of keys, number of each, counts (F, 2) of pairs in which the chosen, in which the
    rejected side alone has it, sums by prompt (F, 3: prompt last seen + 1, its sum of signs, Σ sum²; empty where no prompt
    has two pairs), and which features (F,) have every (pair, feature, sign) written down. Returns (entries, pair to go on
    from): the pair whose entries might not fit into `found`, or the last + 1.
    """
    frequent, keys, numbers, counts, squares, named = known
    tokens, out, table, used, state = work[0], work[1], work[3], work[4], work[5]
    wrote, room = 0, len(found[0])
    for p in range(begin, len(groups)):
        if room - wrote < 2 * len(counts):
            forget(work)
            return wrote, p
        read_prompt(p, texts, bounds, codes, work)
        state[0] += 1
        state[1] = 0
        for side in range(2):
            at, end = span(bounds[side + 1], p)
            n, count = note_all(texts[side + 1], at, end, codes, tokens, out)
            hits[p, side], languages[p, side] = measure(
                p, side, texts[side + 1], at, end, count, codes, marks, work, measures[p, side]
            )
            add_side(side, n, at, work, frequent)
        for u in range(one_sided(state[1], table, used)):
            slot = look_up(keys, table[used[u], 0])
            if keys[slot] == 0:
                continue
            f, side = numbers[slot], np.int64(table[used[u], 1] & np.uint64(3))
            counts[f, side - 1] += 1
            if len(squares):
                if squares[f, 0] != groups[p] + 1:
                    squares[f, 2] += squares[f, 1] * squares[f, 1]
                    squares[f, 0], squares[f, 1] = groups[p] + 1, 0
                squares[f, 1] += 3 - 2 * side
            if named[f]:
                found[0][wrote], found[1][wrote], found[2][wrote] = first + p, f, 3 - 2 * side
                wrote += 1
    forget(work)
    return wrote, len(groups)


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
