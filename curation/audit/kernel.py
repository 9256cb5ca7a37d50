"""Features of a text, compiled.

A text is read once, byte by byte, into tokens (words, runs of one symbol, line breaks; Chinese, Japanese and Thai
by code point). Its features are hashes: 1- to 3-grams, cased words, code points, the first and last tokens,
whitespace at the ends, marks of format.

Numba, cached beside this file: the first call on a machine compiles for some seconds (`make setup` does it).
"""

import numpy as np
from numba import njit

from curation.audit.codes import BEYOND, BREAK, CODES, JOINER, LETTER, SINGLE, SPACE, SYMBOL
from curation.audit.eights import HIGH, THREE, first, letters_of, load, zeros_below

FAMILIES = ("word", "phrase", "cased", "character", "opener", "closer", "whitespace", "format")
WORD, PHRASE, CASED, CHARACTER, OPENER, CLOSER, WHITESPACE, FORMAT = range(8)
EDGE = 4  # tokens of the longest opener and closer
LONGEST = 1 << 17  # bytes of a text that are read
A_BYTE = 4  # features that a byte begins, at most
SEED = np.uint64(0x9E3779B97F4A7C15)
PRIME = np.uint64(0x100000001B3)
MIX = np.uint64(0xFF51AFD7ED558CCD)
SHIFT = np.uint64(32)
LOW = np.uint64(7)


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
    if code < CODES:
        return kinds[code]
    return np.uint8(SINGLE) if BEYOND[0] <= code < BEYOND[1] else np.uint8(SYMBOL)


@njit(cache=True, nogil=True)
def read_tokens(text, at, end, codes, tokens):
    """Tokens of text[at:end]: start, end, kind, hash of the lower-cased token and of the token as it stands; returns
    how many. A word may hold apostrophes between letters."""
    kinds, lower, _ = codes
    starts, ends, kind_at, plain, cased = tokens
    n, i = 0, at
    while i < end:
        if text[i] == 32:
            i += 1
            continue
        folded, capitals, after = run_of_letters(text, i, end, SEED, np.uint64(0))
        start, kind = i, np.uint8(LETTER)
        if after > i:
            i = after
            goes_on = i < end and (text[i] >= 0x80 or text[i] == 39)
        else:
            code, size = code_at(text, i, end)
            kind = kind_of(code, kinds)
            if kind == SPACE:
                i += size
                continue
            goes_on = kind == LETTER
            if not goes_on:
                kind = np.uint8(SYMBOL) if kind == JOINER else kind
                folded, i = run_of_one(text, i, end, code, size, kind, kinds, lower)
        while goes_on and i < end:
            code, size = code_at(text, i, end)
            goes_on = word_goes_on(text, i, end, code, size, kinds) or i == start
            if goes_on:
                small = np.int64(lower[code]) if code < CODES else code
                folded = (folded ^ np.uint64(small)) * PRIME
                if small != code:
                    capitals = (capitals + np.uint64(i - start + 1)) * PRIME
                folded, capitals, i = run_of_letters(text, i + size, end, folded, capitals)
        folded = mix(folded)
        starts[n], ends[n], kind_at[n], plain[n] = start, i, kind, folded
        cased[n] = folded if capitals == 0 else mix(folded + capitals)
        n += 1
    return n


@njit(cache=True, nogil=True)
def run_of_letters(text, i, end, folded, capitals):
    """(hash, hash of capitals, end) of the ASCII letters, digits and underscores from i on, eight at a time."""
    while i < end:
        of_word, upper, small = letters_of(load(text, i))
        count = min(np.int64(zeros_below(~of_word & HIGH) >> THREE), end - i)
        if count == 0:
            break
        part = first(count)
        folded = (folded ^ (small & part)) * MIX
        folded ^= folded >> SHIFT
        if upper & part:
            capitals = (capitals ^ (upper & part)) * MIX
        i += count
        if count < 8:
            break
    return folded, capitals, i


@njit(cache=True, nogil=True)
def run_of_one(text, i, end, code, size, kind, kinds, lower):
    """(hash, end) of a token that is no word: one Chinese character, a run of one symbol, line breaks together."""
    first_code, folded = code, SEED + np.uint64(kind)
    while True:
        small = np.int64(lower[code]) if code < CODES else code
        folded = (folded ^ np.uint64(small)) * PRIME
        i += size
        if i >= end or kind == SINGLE:
            return folded, i
        code, size = code_at(text, i, end)
        after = kind_of(code, kinds)
        after = np.uint8(SYMBOL) if after == JOINER else after
        if after != kind or (kind == SYMBOL and code != first_code):
            return folded, i


@njit(cache=True, nogil=True)
def word_goes_on(text, i, end, code, size, kinds):
    """Whether the code point at i belongs to the word before it."""
    kind = kind_of(code, kinds)
    if kind == JOINER and i + size < end:
        beyond, _ = code_at(text, i + size, end)
        kind = kind_of(beyond, kinds)
    return kind == LETTER


@njit(cache=True, nogil=True)
def joined(before, token):
    """Hash of a phrase and one token more."""
    return mix(before + SEED) ^ token


@njit(cache=True, nogil=True)
def note(out, n, key, family, start, end):
    """Write a feature down; `key` is a hash whose bits are well mixed."""
    keys, where = out
    keys[n] = (key & ~LOW) | np.uint64(family)
    where[n] = (np.uint64(start) << SHIFT) | np.uint64(end)
    return n + 1


@njit(cache=True, nogil=True)
def note_phrases(out, n, count, tokens):
    """1- to 3-grams (4 where a token is one Chinese, Japanese or Thai character), cased words, openers and closers."""
    starts, ends, kind_at, plain, cased = tokens
    for i in range(count):
        n = note(out, n, plain[i], WORD, starts[i], ends[i])
        if cased[i] != plain[i]:
            n = note(out, n, cased[i], CASED, starts[i], ends[i])
        longest = 4 if kind_at[i] == SINGLE else 3
        phrase = plain[i]
        for k in range(i + 1, min(i + longest, count)):
            if k == i + 3 and kind_at[k] != SINGLE:
                break
            phrase = joined(phrase, plain[k])
            n = note(out, n, phrase, PHRASE, starts[i], ends[k])
    first, last = SEED, MIX
    for k in range(min(EDGE, count)):
        first, last = joined(first, cased[k]), joined(last, cased[count - 1 - k])
        n = note(out, n, first, OPENER, starts[0], ends[k])
        n = note(out, n, last, CLOSER, starts[count - 1 - k], ends[count - 1])
    return n


@njit(cache=True, nogil=True)
def is_odd(text, at, end):
    """Whether a text holds anything beyond ASCII, tabs or carriage returns."""
    found = False
    for i in range(at, end):
        found |= (text[i] >= 0x80) | (text[i] == 9) | (text[i] == 13)
    return found


@njit(cache=True, nogil=True)
def note_characters(out, n, text, at, end, count, tokens):
    """Every symbol, every control and every code point beyond ASCII letters; whitespace at both ends as it stands."""
    starts, _, kind_at, _, _ = tokens
    for k in range(count):
        if kind_at[k] == SYMBOL and text[starts[k]] < 0x80:
            n = note(out, n, mix(SEED + np.uint64(text[starts[k]])), CHARACTER, starts[k], starts[k] + 1)
    i = at if is_odd(text, at, end) else end
    while i < end:
        if text[i] >= 0x80:
            code, size = code_at(text, i, end)
            n = note(out, n, mix(SEED + np.uint64(code)), CHARACTER, i, i + size)
            i += size
        else:
            if text[i] == 9 or text[i] == 13:
                n = note(out, n, mix(SEED + np.uint64(text[i])), CHARACTER, i, i + 1)
            i += 1
    head, tail = at, end
    while head < end and text[head] <= 32:
        head += 1
    while tail > head and text[tail - 1] <= 32:
        tail -= 1
    for edge, a, b in ((1, at, head), (2, tail, end)):
        if b > a:
            value = np.uint64(edge)
            for k in range(a, b):
                value = joined(value, np.uint64(text[k]))
            n = note(out, n, mix(SEED + np.uint64(edge)), WHITESPACE, a, b)
            n = note(out, n, mix(value), WHITESPACE, a, b)
    return n


@njit(cache=True, nogil=True)
def note_formats(out, n, text, end, count, tokens):
    """Marks at the start of a line: bullets by glyph, numbers, headers by level, fences with their language, tables."""
    starts, ends, kind_at, _, _ = tokens
    for k in range(count):
        if k > 0 and kind_at[k - 1] != BREAK:
            continue
        i, j = starts[k], ends[k]
        c = text[i]
        spaced = j < end and text[j] == 32
        if c == 35 or c == 96 or c == 62 or c == 124:  # # ` > |
            value = np.uint64(c) * np.uint64(64) + np.uint64(min(j - i, 60))
            while c == 96 and j < end and text[j] > 32:
                value = joined(value, np.uint64(text[j]))
                j += 1
            if c != 96 or j - i >= 3:
                n = note(out, n, mix(value * SEED), FORMAT, i, j)
        elif (c == 45 or c == 42 or c == 43) and j - i == 1 and spaced:  # - * +
            n = note(out, n, mix(np.uint64(c) * PRIME), FORMAT, i, i + 2)
        elif 48 <= c <= 57 and j + 1 < end and (text[j] == 46 or text[j] == 41) and text[j + 1] == 32:  # 1. 1)
            n = note(out, n, mix(np.uint64(1000) + np.uint64(text[j]) * PRIME), FORMAT, i, j + 1)
    return n


@njit(cache=True, nogil=True)
def note_all(text, at, end, codes, tokens, out):
    """All features of a text into `out`, repeats and all; (features, tokens)."""
    count = read_tokens(text, at, end, codes, tokens)
    n = note_phrases(out, 0, count, tokens)
    n = note_characters(out, n, text, at, end, count, tokens)
    return note_formats(out, n, text, end, count, tokens), count


@njit(cache=True, nogil=True)
def span(bounds, row):
    """Where a text begins and how far it is read."""
    return bounds[row], min(bounds[row + 1], bounds[row] + LONGEST)


@njit(cache=True, nogil=True)
def look_up(table, key):
    """Slot of `key` in an open table of keys, or of the free place (0) where it would stand."""
    slot = np.int64(key >> np.uint64(20)) & (len(table) - 1)
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot
