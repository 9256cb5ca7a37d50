"""What each code point is: its class, its lower case, its script. Tables that the compiled kernel looks things up in."""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np

CODES = 0x10000  # code points in the tables; of those above, BEYOND are Chinese characters and the rest symbols
BEYOND = (0x20000, 0x32000)
_ALIKE = ((0x3400, 0x4DC0), (0x4E00, 0x9FFD), (0xAC00, 0xD7A4))
SPACE, BREAK, LETTER, SYMBOL, SINGLE, JOINER = range(6)
SCRIPTS = (
    "Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Kana", "Han", "other script",
)  # fmt: skip
_RANGES = (
    (0x370, 0x400, 2), (0x400, 0x530, 1), (0x590, 0x600, 4), (0x600, 0x780, 3), (0x900, 0x980, 5), (0xE00, 0xE80, 6),
    (0x1100, 0x1200, 7), (0x1E00, 0x1F00, 0), (0x1F00, 0x2000, 2), (0x3040, 0x3100, 8), (0x3400, 0xA000, 9), (0xAC00, 0xD7B0, 7),
    (0xF900, 0xFB00, 9), (0xFB50, 0xFE00, 3),
)  # fmt: skip


class Codes(NamedTuple):
    kinds: np.ndarray  # uint8 (CODES,)
    lower: np.ndarray  # int32 (CODES,)
    script: np.ndarray  # uint8 (CODES,): index into SCRIPTS; 255 where a code point has none


@lru_cache(maxsize=1)
def codes() -> Codes:
    """The tables, made once a process."""
    kinds = np.full(CODES, SYMBOL, np.uint8)
    lower = np.arange(CODES, dtype=np.int32)
    script = np.full(CODES, 255, np.uint8)
    for first, last in _ALIKE:  # letters without case, thousands of them
        kinds[first:last] = SINGLE if _one_by_one(first) else LETTER
        script[first:last] = len(SCRIPTS) - 1
    alike = {code for first, last in _ALIKE for code in (first, last)}
    code = 0
    while code < CODES:
        if code in alike:
            code = next(last for first, last in _ALIKE if first == code)
        char = chr(code)
        category = unicodedata.category(char)
        if category[0] in "LNM":
            kinds[code] = SINGLE if _one_by_one(code) else LETTER
            small = char.lower()
            lower[code] = ord(small) if len(small) == 1 and ord(small) < CODES else code
            if category[0] == "L":
                script[code] = 0 if code < 0x250 else len(SCRIPTS) - 1
        code += 1
    for first, last, which in _RANGES:
        part = script[first:last]
        part[part != 255] = which
    kinds[[ord(" "), ord("\t")]] = SPACE
    kinds[[ord("\n"), ord("\r")]] = BREAK
    kinds[[ord("'"), 0x2019]] = JOINER
    kinds[ord("_")] = LETTER
    return Codes(kinds, lower, script)


def _one_by_one(code: int) -> bool:
    """Scripts written without spaces."""
    return 0x0E00 <= code < 0x0F00 or 0x2E80 <= code < 0xA4D0 or 0xF900 <= code < 0xFB00
