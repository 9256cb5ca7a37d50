"""The first pass over the texts, compiled: measures of every answer, and every feature counted in hash buckets.

A bucket's count is an upper bound of each of its features' counts, so that what stays below a bound can be left out
without loss.
"""

import numpy as np
from numba import njit

from curation.audit.codes import BEYOND, BREAK, CODES, LETTER, SCRIPTS, SINGLE, SYMBOL
from curation.audit.kernel import code_at, joined, look_up, note_all, read_tokens, span

MEASURES = (
    "characters", "words", "lines", "sentences", "list items", "bold marks", "digits", "capitals", "symbols",
    "non-ASCII characters", "distinct words", "words of the prompt", "question marks", "exclamation marks",
)  # fmt: skip
PHRASE_BEGINS = np.uint64(1 << 63)  # of a mark's bits: longer phrases begin with this word
MARKED = 8  # tokens of the longest phrase in a lexicon
WORDS = np.uint64((1 << 14) - 1)  # of a hash: the place of a word among those seen
BEGINNINGS = np.uint64((1 << 14) - 1)
SPOKEN = 96  # tokens looked at to guess a language
HAN = SCRIPTS.index("Han")
FULL = np.uint8(255)  # a bucket that holds more says 255


@njit(cache=True, nogil=True)
def survey(texts, bounds, codes, marks, work, buckets, measures, hits, languages):
    """Measure every text and count every feature's occurrences in its bucket.

    `measures` (pairs, 2, len(MEASURES)), `hits` (pairs, 2): bits of lexicons (low 32) and scripts (from bit 32),
    `languages` (pairs, 2): index of the likeliest language + 1, 0 where none is likely.
    """
    tokens, out = work[0], work[1]
    mask = len(buckets) - 1
    for p in range(len(bounds[0]) - 1):
        read_prompt(p, texts, bounds, codes, work)
        for side in range(2):
            at, end = span(bounds[side + 1], p)
            n, count = note_all(texts[side + 1], at, end, codes, tokens, out)
            for k in range(n):
                bucket = np.int64(out[0][k] >> np.uint64(3)) & mask
                if buckets[bucket] != FULL:
                    buckets[bucket] += np.uint8(1)
            hits[p, side], languages[p, side] = measure(
                p, side, texts[side + 1], at, end, count, codes, marks, work, measures[p, side]
            )
    forget(work)


@njit(cache=True, nogil=True)
def read_prompt(p, texts, bounds, codes, work):
    """Stamp the words of a prompt, so that those of its answers are known."""
    tokens, of_prompt = work[0], work[2][0]
    at, end = span(bounds[0], p)
    n = read_tokens(texts[0], at, end, codes, tokens)
    for k in range(n):
        of_prompt[tokens[3][k] & WORDS] = np.uint32(2 * p + 1)


@njit(cache=True, nogil=True)
def forget(work):
    """Make the stamps fit for another chunk."""
    work[2][0][:] = 0
    work[2][1][:] = 0


@njit(cache=True, nogil=True)
def measure(p, side, text, at, end, count, codes, marks, work, found):
    """Everything that is measured of a text whose tokens have been read: (lexicons and scripts, language)."""
    of_prompt, of_text, votes, bytes_of = work[2]
    stamp = np.uint32(2 * p + 1)
    measure_bytes(text, at, end, bytes_of, found)
    measure_tokens(text, count, work[0], of_prompt, of_text, stamp, stamp + np.uint32(side), found)
    hit = read_lexicons(count, work[0], marks)
    if found[1] > 0:
        hit |= read_scripts(text, at, end, codes, found[9] > 0)
    return hit, read_language(count, work[0], marks, votes)


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
        which = codes[2][code] if code < CODES else np.uint8(HAN if BEYOND[0] <= code < BEYOND[1] else 255)
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
