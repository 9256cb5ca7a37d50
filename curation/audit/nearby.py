"""What stands beside a feature, compiled: how often a side has it at all, whether the prompt has it, bags of words."""

import numpy as np
from numba import njit

from curation.audit.codes import LETTER, SINGLE
from curation.audit.counting import keep_frequent, read_pair
from curation.audit.kernel import LOW, look_up, note_all, read_tokens, span


@njit(cache=True, nogil=True)
def witness(texts, bounds, codes, work, frequent, keys, numbers, in_prompt, stamp, seen):
    """seen (F, 4) gains: pairs whose chosen, whose rejected side has the feature at all; pairs in which one side alone
    has it; and of those, the ones whose prompt has it too. `in_prompt` (F,) holds stamps; the last one used returns."""
    tokens, out, _, table, used, _ = work
    for p in range(len(bounds[0]) - 1):
        stamp += 1
        at, end = span(bounds[0], p)
        n, _ = note_all(texts[0], at, end, codes, tokens, out)
        n = keep_frequent(n, out, frequent)
        for k in range(n):
            slot = look_up(keys, out[0][k])
            if keys[slot] != 0:
                in_prompt[numbers[slot]] = stamp
        many = read_pair(p, texts, bounds, codes, work, frequent)
        for u in range(many):
            slot = look_up(keys, table[used[u], 0])
            if keys[slot] == 0:
                continue
            f, side = numbers[slot], table[used[u], 1] & np.uint64(3)
            seen[f, 0] += side != 2
            seen[f, 1] += side != 1
            if side != 3:
                seen[f, 2] += 1
                seen[f, 3] += in_prompt[f] == stamp
    return stamp


@njit(cache=True, nogil=True)
def bags(text, bounds, codes, work, found):
    """found (texts, dimensions): how often each text has words of each hash."""
    tokens = work[0]
    for p in range(len(bounds) - 1):
        at, end = span(bounds, p)
        count = read_tokens(text, at, end, codes, tokens)
        for k in range(count):
            if tokens[2][k] == LETTER or tokens[2][k] == SINGLE:
                found[p, np.int64(tokens[3][k] >> np.uint64(8)) & (found.shape[1] - 1)] += 1


@njit(cache=True, nogil=True)
def presence(texts, bounds, codes, work, keys, numbers, found):
    """found (pairs, 2, words): whether each answer has each of the words whose hashes are `keys`."""
    tokens = work[0]
    for p in range(len(bounds[0]) - 1):
        for side in range(2):
            at, end = span(bounds[side + 1], p)
            count = read_tokens(texts[side + 1], at, end, codes, tokens)
            for k in range(count):
                slot = look_up(keys, tokens[3][k] & ~LOW)
                if keys[slot] != 0:
                    found[p, side, numbers[slot]] = True
