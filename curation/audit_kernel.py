"""Features of a pair, compiled: what stands on one side only.

A text is read once, byte by byte, into tokens (words, runs of one symbol, line breaks; Chinese, Japanese and Thai
by code point). Its features are hashes: 1- to 3-grams, cased words, code points, the first and last tokens,
whitespace at the ends, marks of format. Of a pair only the features of exactly one side are kept: whatever both have,
a topic word of the prompt say, says nothing about the preference.

Numba, cached beside this file: the first call on a machine compiles for some seconds.
"""

import unicodedata
from functools import lru_cache

import numpy as np
from numba import njit

FAMILIES = ("word", "phrase", "cased", "character", "opener", "closer", "whitespace", "format")
WORD, PHRASE, CASED, CHARACTER, OPENER, CLOSER, WHITESPACE, FORMAT = range(8)
CODES = 0x30000  # code points classified one by one; those above are symbols
SPACE, BREAK, LETTER, SYMBOL, SINGLE, JOINER = range(6)
EDGE = 4  # tokens of the longest opener and closer
SEED = np.uint64(0x9E3779B97F4A7C15)
MIX = np.uint64(0xFF51AFD7ED558CCD)
SHIFT = np.uint64(32)
LOW = np.uint64(7)


@lru_cache(maxsize=1)
def code_tables() -> tuple[np.ndarray, np.ndarray]:
    """Class (uint8) and lower case (int32) of every code point below CODES."""
    kinds = np.full(CODES, SYMBOL, np.uint8)
    lower = np.arange(CODES, dtype=np.int32)
    for code in range(CODES):
        char = chr(code)
        category = unicodedata.category(char)
        if category[0] in "LNM":
            kinds[code] = SINGLE if _one_by_one(code) else LETTER
            small = char.lower()
            lower[code] = ord(small) if len(small) == 1 else code
    kinds[[ord(" "), ord("\t")]] = SPACE
    kinds[[ord("\n"), ord("\r")]] = BREAK
    kinds[[ord("'"), 0x2019]] = JOINER
    kinds[ord("_")] = LETTER
    return kinds, lower


def _one_by_one(code: int) -> bool:
    """Scripts written without spaces."""
    return 0x0E00 <= code < 0x0F00 or 0x2E80 <= code < 0xA4D0 or 0xF900 <= code < 0xFB00 or code >= 0x20000


@njit(cache=True, nogil=True)
def mix(value):
    value = (value ^ (value >> SHIFT)) * MIX
    return value ^ (value >> SHIFT)


@njit(cache=True, nogil=True)
def code_at(text, i, end):
    """(code point, bytes) at i; a damaged byte is a code point of its own."""
    first = np.int64(text[i])
    if first < 0x80:
        return first, 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC0 or i + size > end:
        return np.int64(0x10FF00) + first, 1
    code = first & (0xFF >> (size + 1))
    for k in range(1, size):
        code = (code << 6) | (np.int64(text[i + k]) & 0x3F)
    return code, size


@njit(cache=True, nogil=True)
def kind_of(code, kinds):
    return kinds[code] if code < CODES else SYMBOL


@njit(cache=True, nogil=True)
def read_tokens(text, at, end, kinds, lower, starts, ends, plain, cased):
    """Tokens of text[at:end] into the four arrays; returns how many. A word may hold apostrophes between letters."""
    n, i = 0, at
    while i < end:
        code, size = code_at(text, i, end)
        kind = kind_of(code, kinds)
        if kind == SPACE:
            i += size
            continue
        kind = SYMBOL if kind == JOINER else kind
        start, first = i, code
        folded, exact = SEED + np.uint64(kind), SEED + np.uint64(kind)
        while True:
            low = lower[code] if code < CODES else code
            folded = mix(folded ^ np.uint64(low))
            exact = mix(exact ^ np.uint64(code))
            i += size
            if i >= end or kind == SINGLE:
                break
            code, size = code_at(text, i, end)
            after = kind_of(code, kinds)
            if kind == LETTER and after == JOINER and i + size < end:
                beyond, _ = code_at(text, i + size, end)
                after = LETTER if kind_of(beyond, kinds) == LETTER else JOINER
            if kind == SYMBOL and after == JOINER:
                after = SYMBOL
            if after != kind or (kind == SYMBOL and code != first):
                break
        starts[n], ends[n], plain[n], cased[n] = start, i, folded, exact
        n += 1
    return n


@njit(cache=True, nogil=True)
def put(state, slots, key, side, start, end, family):
    """Note in the pair's table that `side` (1 chosen, 2 rejected) has the feature."""
    keys, stamps, masks, spans, used = slots
    key = (mix(key + np.uint64(family) * SEED) & ~LOW) | np.uint64(family)
    slot = np.int64(key >> np.uint64(20)) & state[2]
    while stamps[slot] == state[0] and keys[slot] != key:
        slot = (slot + 1) & state[2]
    if stamps[slot] != state[0]:
        stamps[slot], keys[slot], masks[slot] = state[0], key, 0
        spans[slot, 0], spans[slot, 1] = start, end
        used[state[1]] = slot
        state[1] += 1
    masks[slot] |= side


@njit(cache=True, nogil=True)
def put_phrases(state, slots, side, n, starts, ends, plain, cased):
    """1- to 3-grams, cased words, openers and closers."""
    for i in range(n):
        put(state, slots, plain[i], side, starts[i], ends[i], WORD)
        if cased[i] != plain[i]:
            put(state, slots, cased[i], side, starts[i], ends[i], CASED)
        if i + 1 < n:
            two = mix(plain[i] + SEED) ^ plain[i + 1]
            put(state, slots, two, side, starts[i], ends[i + 1], PHRASE)
            if i + 2 < n:
                put(state, slots, mix(two + SEED) ^ plain[i + 2], side, starts[i], ends[i + 2], PHRASE)
    first, last = SEED, SEED
    for k in range(min(EDGE, n)):
        first = mix(first + SEED) ^ cased[k]
        put(state, slots, first, side, starts[0], ends[k], OPENER)
        last = mix(last + SEED) ^ cased[n - 1 - k]
        put(state, slots, last, side, starts[n - 1 - k], ends[n - 1], CLOSER)


@njit(cache=True, nogil=True)
def put_characters(state, slots, side, text, at, end, kinds):
    """Every symbol, every control and every code point beyond ASCII letters; whitespace at both ends as it stands."""
    i = at
    while i < end:
        code, size = code_at(text, i, end)
        kind = kind_of(code, kinds)
        if code >= 0x80 or code == 9 or code == 13 or kind == SYMBOL:
            put(state, slots, np.uint64(code), side, i, i + size, CHARACTER)
        i += size
    head, tail = at, end
    while head < end and text[head] <= 32:
        head += 1
    while tail > head and text[tail - 1] <= 32:
        tail -= 1
    for edge, a, b in ((1, at, head), (2, tail, end)):
        if b > a:
            value = np.uint64(edge)
            for i in range(a, b):
                value = mix(value + SEED) ^ np.uint64(text[i])
            put(state, slots, np.uint64(edge), side, a, b, WHITESPACE)
            put(state, slots, value, side, a, b, WHITESPACE)


@njit(cache=True, nogil=True)
def put_formats(state, slots, side, text, at, end):
    """Marks at the start of a line: bullets by glyph, numbers, headers by level, fences with their language, tables."""
    begins = True
    for i in range(at, end):
        c = text[i]
        if begins and c != 32 and c != 9 and c != 10:
            j = i
            if c == 35 or c == 96 or c == 62 or c == 124:  # # ` > |
                while j < end and text[j] == c:
                    j += 1
                value = np.uint64(c) * np.uint64(64) + np.uint64(min(j - i, 60))
                while c == 96 and j < end and text[j] > 32:
                    value = mix(value + SEED) ^ np.uint64(text[j])
                    j += 1
                if c != 96 or j - i >= 3:
                    put(state, slots, value, side, i, j, FORMAT)
            elif (c == 45 or c == 42 or c == 43) and i + 1 < end and text[i + 1] == 32:  # - * +
                put(state, slots, np.uint64(c), side, i, i + 2, FORMAT)
            elif 48 <= c <= 57:
                while j < end and 48 <= text[j] <= 57:
                    j += 1
                if j + 1 < end and (text[j] == 46 or text[j] == 41) and text[j + 1] == 32:  # 1. 1)
                    put(state, slots, np.uint64(1000) + np.uint64(text[j]), side, i, j + 1, FORMAT)
        if c == 10:
            begins = True
        elif c != 32 and c != 9:
            begins = False


@njit(cache=True, nogil=True)
def read_pair(pair, texts, bounds, tables, state, slots, tokens):
    """Fill the pair's table; `state` is (stamp, slots used, mask of the part in use). A feature's side is in its mask.

    The part in use is as large as the pair needs (a byte begins four features at most), so that it stays in cache.
    """
    state[0] += 1
    state[1] = 0
    room = 4 * (bounds[0][pair + 1] - bounds[0][pair] + bounds[1][pair + 1] - bounds[1][pair]) + 64
    state[2] = 63
    while state[2] < room:
        state[2] = 2 * state[2] + 1
    kinds, lower = tables
    starts, ends, plain, cased = tokens
    for k in range(2):
        text, side = texts[k], np.uint8(k + 1)
        at, end = bounds[k][pair], bounds[k][pair + 1]
        n = read_tokens(text, at, end, kinds, lower, starts, ends, plain, cased)
        put_phrases(state, slots, side, n, starts, ends, plain, cased)
        put_characters(state, slots, side, text, at, end, kinds)
        put_formats(state, slots, side, text, at, end)
    return state[1]


@njit(cache=True, nogil=True)
def count_buckets(first, last, texts, bounds, tables, state, slots, tokens, buckets):
    """Pass 1: one-sided occurrences by hash bucket, never fewer than any single feature's."""
    keys, _, masks, _, used = slots
    for pair in range(first, last):
        for u in range(read_pair(pair, texts, bounds, tables, state, slots, tokens)):
            if masks[used[u]] != 3:
                buckets[np.int64(keys[used[u]] >> np.uint64(3)) & (len(buckets) - 1)] += 1


@njit(cache=True, nogil=True)
def collect(first, last, texts, bounds, tables, state, slots, tokens, buckets, least, found):
    """Pass 2: (key, pair, sign, span) of one-sided features in buckets of at least `least`; returns how many, or -1
    when `found` is too short."""
    keys, _, masks, spans, used = slots
    out_keys, out_pairs, out_signs, out_spans = found
    n = 0
    for pair in range(first, last):
        for u in range(read_pair(pair, texts, bounds, tables, state, slots, tokens)):
            slot = used[u]
            bucket = np.int64(keys[slot] >> np.uint64(3)) & (len(buckets) - 1)
            if masks[slot] == 3 or buckets[bucket] < least:
                continue
            if n == len(out_keys):
                return -1
            out_keys[n], out_pairs[n], out_signs[n] = keys[slot], pair, 1 if masks[slot] == 1 else -1
            out_spans[n, 0], out_spans[n, 1] = spans[slot, 0], spans[slot, 1]
            n += 1
    return n


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
def add_by_prompt(pairs, features, values, groups, sums, absolute, squares):
    """Per feature: Σ of its values, and over prompts Σ |sum| and Σ sum². Entries come prompt by prompt."""
    at = np.full(len(sums), -1, np.int64)
    running = np.zeros(len(sums), values.dtype)
    for e in range(len(pairs)):
        f, g = features[e], groups[pairs[e]]
        if at[f] != g:
            absolute[f] += abs(running[f])
            squares[f] += running[f] * running[f]
            at[f], running[f] = g, 0
        running[f] += values[e]
        sums[f] += values[e]
    for f in range(len(sums)):
        absolute[f] += abs(running[f])
        squares[f] += running[f] * running[f]
