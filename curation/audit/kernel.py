"""Features of a pair, compiled: what stands on one side only.

A text is read once, byte by byte, into tokens (words, runs of one symbol, line breaks; Chinese, Japanese and Thai
by code point). Its features are hashes: 1- to 3-grams, cased words, code points, the first and last tokens,
whitespace at the ends, marks of format. Of a pair only the features of exactly one side are kept: whatever both have,
a topic word of the prompt say, says nothing about the preference.

Three passes over the texts, each exact: `survey` measures every text and counts features in hash buckets, an upper
bound of every feature's count; `tally` counts those whose bucket can matter; `collect` writes down, for chosen
features, which pair has them. Sums are of whole numbers, so that neither chunks nor threads change a bit.

Numba, cached beside this file: the first call on a machine compiles for some seconds.
"""

import numpy as np
from numba import njit

from curation.audit.codes import BREAK, CODES, JOINER, LETTER, SINGLE, SPACE, SYMBOL

FAMILIES = ("word", "phrase", "cased", "character", "opener", "closer", "whitespace", "format")
WORD, PHRASE, CASED, CHARACTER, OPENER, CLOSER, WHITESPACE, FORMAT = range(8)
EDGE = 4  # tokens of the longest opener and closer
LONGEST = 1 << 17  # bytes of a text that are read
A_BYTE = 4  # features that a byte begins, at most
MEASURES = (
    "characters", "words", "lines", "sentences", "list items", "bold marks", "digits", "capitals", "symbols",
    "non-ASCII characters", "distinct words", "words of the prompt", "question marks", "exclamation marks",
)  # fmt: skip
PHRASE_BEGINS = np.uint64(1 << 63)  # of a mark's bits: longer phrases begin with this word
MARKED = 8  # tokens of the longest phrase in a lexicon
SEED = np.uint64(0x9E3779B97F4A7C15)
PRIME = np.uint64(0x100000001B3)
MIX = np.uint64(0xFF51AFD7ED558CCD)
SHIFT = np.uint64(32)
LOW = np.uint64(7)
WORDS = np.uint64((1 << 14) - 1)  # of a hash: the place of a word among those seen
BEGINNINGS = np.uint64((1 << 14) - 1)
SPOKEN = 96  # tokens looked at to guess a language
FULL = np.uint8(255)  # a bucket that holds more says 255


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
    return kinds[code] if code < CODES else np.uint8(SYMBOL)


@njit(cache=True, nogil=True)
def read_tokens(text, at, end, codes, tokens):
    """Tokens of text[at:end]: start, end, kind, hash of the lower-cased token and of the token as it stands; returns
    how many. A word may hold apostrophes between letters."""
    kinds, lower, _, fast = codes
    starts, ends, kind_at, plain, cased = tokens
    n, i = 0, at
    while i < end:
        if text[i] == 32:
            i += 1
            continue
        code, size = code_at(text, i, end)
        kind = kind_of(code, kinds)
        if kind == SPACE:
            i += size
            continue
        kind = np.uint8(SYMBOL) if kind == JOINER else kind
        start, first = i, code
        folded, capitals = SEED + np.uint64(kind), np.uint64(0)
        while True:
            if kind == LETTER:  # a run of ASCII letters and digits at once
                quick = fast[text[i]]
                while quick:
                    folded = (folded ^ np.uint64(quick)) * PRIME
                    if quick != text[i]:
                        capitals = capitals * PRIME + np.uint64(i - start + 1)
                    i += 1
                    quick = fast[text[i]] if i < end else np.uint8(0)
                if i >= end:
                    break
                code, size = code_at(text, i, end)
                after = word_goes_on(text, i, end, code, size, kinds)
                if not after:
                    break
            small = np.int64(lower[code]) if code < CODES else code
            folded = (folded ^ np.uint64(small)) * PRIME
            if small != code:
                capitals = capitals * PRIME + np.uint64(i - start + 1)
            i += size
            if i >= end or kind == SINGLE:
                break
            if kind != LETTER:
                code, size = code_at(text, i, end)
                after = kind_of(code, kinds)
                after = np.uint8(SYMBOL) if after == JOINER else after
                if after != kind or (kind == SYMBOL and code != first):
                    break
            elif not fast[text[i]]:
                code, size = code_at(text, i, end)
                if not word_goes_on(text, i, end, code, size, kinds):
                    break
        folded = mix(folded)
        starts[n], ends[n], kind_at[n], plain[n] = start, i, kind, folded
        cased[n] = folded if capitals == 0 else mix(folded + capitals)
        n += 1
    return n


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


# ---- pass 1


@njit(cache=True, nogil=True)
def survey(texts, bounds, codes, marks, work, buckets, measures, hits, languages):
    """Count every feature's occurrences in its bucket and measure every text.

    `measures` (pairs, 2, len(MEASURES)), `hits` (pairs, 2): bits of lexicons (low 32) and scripts (from bit 32),
    `languages` (pairs, 2): index of the likeliest language + 1, 0 where none is likely.
    """
    tokens, out, seen = work[0], work[1], work[2]
    of_prompt, of_text, votes, bytes_of = seen
    mask = len(buckets) - 1
    for p in range(len(bounds[0]) - 1):
        stamp = np.uint32(2 * p + 1)
        at, end = span(bounds[0], p)
        n = read_tokens(texts[0], at, end, codes, tokens)
        for k in range(n):
            of_prompt[tokens[3][k] & WORDS] = stamp
        for side in range(2):
            text = texts[side + 1]
            at, end = span(bounds[side + 1], p)
            n, count = note_all(text, at, end, codes, tokens, out)
            for k in range(n):
                bucket = np.int64(out[0][k] >> np.uint64(3)) & mask
                if buckets[bucket] != FULL:
                    buckets[bucket] += np.uint8(1)
            found = measures[p, side]
            measure_bytes(text, at, end, bytes_of, found)
            measure_tokens(text, count, tokens, of_prompt, of_text, stamp, stamp + np.uint32(side), found)
            hit = read_lexicons(count, tokens, marks)
            if found[1] > 0:
                hit |= read_scripts(text, at, end, codes, found[9] > 0)
            hits[p, side], languages[p, side] = hit, read_language(count, tokens, marks, votes)
    of_prompt[:] = 0
    of_text[:] = 0


@njit(cache=True, nogil=True)
def measure_bytes(text, at, end, bytes_of, found):
    """Measures that are sums over bytes."""
    bytes_of[:] = 0
    for i in range(at, end):
        bytes_of[text[i]] += 1
    found[0] = bytes_of[:128].sum() + bytes_of[192:].sum()
    found[2] = bytes_of[10]
    found[6] = bytes_of[48:58].sum()
    found[7] = bytes_of[65:91].sum()
    found[8] = bytes_of[33:48].sum() + bytes_of[58:65].sum() + bytes_of[91:97].sum() + bytes_of[123:127].sum()
    found[9] = bytes_of[192:].sum()
    found[12], found[13] = bytes_of[63], bytes_of[33]


@njit(cache=True, nogil=True)
def measure_tokens(text, count, tokens, of_prompt, of_text, stamp, fresh, found):
    """Words, distinct words, words of the prompt; sentences, list items, bold marks."""
    starts, ends, kind_at, plain, _ = tokens
    for k in range(count):
        kind = kind_at[k]
        if kind == LETTER or kind == SINGLE:
            found[1] += 1
            slot = plain[k] & WORDS
            if of_text[slot] != fresh:
                of_text[slot] = fresh
                found[10] += 1
                found[11] += of_prompt[slot] == stamp
        elif kind == SYMBOL:
            c = text[starts[k]]
            apart = k + 1 == count or starts[k + 1] > ends[k] or kind_at[k + 1] == BREAK
            long_stop = c == 0xE3 and text[starts[k] + 1] == 0x80 and text[starts[k] + 2] == 0x82  # 。
            found[3] += ((c == 46 or c == 33 or c == 63) and apart) or long_stop
            found[5] += c == 42 and ends[k] - starts[k] >= 2
            begins = k == 0 or kind_at[k - 1] == BREAK
            found[4] += begins and apart and (c == 45 or c == 42 or c == 43) and ends[k] - starts[k] == 1
            numbered = k > 0 and 48 <= text[starts[k - 1]] <= 57 and (k == 1 or kind_at[k - 2] == BREAK)
            found[4] += numbered and apart and (c == 46 or c == 41)


@njit(cache=True, nogil=True)
def read_lexicons(count, tokens, marks):
    """Bits of the lexicons a text holds a phrase of."""
    keys, bits, _, begins = marks
    hit = np.uint64(0)
    for k in range(count):
        if not begins[tokens[3][k] & BEGINNINGS]:
            continue
        slot = look_up(keys, tokens[3][k])
        if keys[slot] == 0:
            continue
        hit |= bits[slot]
        if bits[slot] & PHRASE_BEGINS:
            phrase = tokens[3][k]
            for more in range(k + 1, min(k + MARKED, count)):
                phrase = joined(phrase, tokens[3][more])
                slot = look_up(keys, phrase)
                hit |= bits[slot]  # 0 where the place is free
    return hit & np.uint64(0x7FFFFFFF)


@njit(cache=True, nogil=True)
def read_scripts(text, at, end, codes, foreign):
    """Bits of the scripts a text holds letters of, from bit 32 on."""
    hit = np.uint64(0)
    for i in range(at, end):
        if 65 <= (text[i] & 0xDF) <= 90:
            hit = np.uint64(1) << np.uint64(32)
            break
    i = at if foreign else end
    while i < end:
        if text[i] < 0x80:
            i += 1
            continue
        code, size = code_at(text, i, end)
        which = codes[2][code] if code < CODES else np.uint8(255)
        if which != 255:
            hit |= np.uint64(1) << (np.uint64(which) + np.uint64(32))
        i += size
    return hit


@njit(cache=True, nogil=True)
def read_language(count, tokens, marks, votes):
    """The language most of whose function words stand among a text's first tokens, two at the least."""
    keys, _, of_language, _ = marks
    votes[:] = 0
    for k in range(min(count, SPOKEN)):
        slot = look_up(keys, tokens[3][k])
        spoken = of_language[slot]
        language = 0
        while spoken:
            votes[language] += spoken & np.uint32(1)
            spoken >>= np.uint32(1)
            language += 1
    best = np.argmax(votes)
    return np.uint8(best + 1 if votes[best] >= 2 else 0)


# ---- passes 2 and 3: one-sided features of a pair


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


# ---- hashes of whole texts, moving texts


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


# ---- what stands beside a feature


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
