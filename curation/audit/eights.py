"""Eight bytes of a text at a time: where a run of ASCII letters and digits ends, and its lower case.

Bytes are looked at side by side in one 64-bit word (SWAR): an addition carries into bit 7 of every byte that is at least
some value. Texts must be followed by seven bytes more, whatever they are.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

HIGH = np.uint64(0x8080808080808080)
LOWER_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
SMALL = np.uint64(0x2020202020202020)
FROM_A, BEYOND_Z = np.uint64(0x1F1F1F1F1F1F1F1F), np.uint64(0x0505050505050505)  # 0x80 − "a", 0x80 − "z" − 1
FROM_0, BEYOND_9 = np.uint64(0x5050505050505050), np.uint64(0x4646464646464646)
UNDERSCORES = np.uint64(0x5F5F5F5F5F5F5F5F)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
TWO, THREE, SEVEN = np.uint64(2), np.uint64(3), np.uint64(7)


@intrinsic
def load(typing_context: Any, text: Any, at: Any) -> Any:
    """The eight bytes at `at`, the first one lowest. No bounds are checked."""

    def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        wide = builder.bitcast(place, ir.IntType(64).as_pointer())
        found = builder.load(wide)
        found.align = 1
        return found

    return types.uint64(text, types.int64), make


@intrinsic
def store(typing_context: Any, text: Any, at: Any, word: Any) -> Any:
    """Eight bytes to `at`. No bounds are checked."""

    def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, ir.IntType(64).as_pointer())).align = 1
        return context.get_dummy_value()

    return types.none(text, types.int64, types.uint64), make


@intrinsic
def zeros_below(typing_context: Any, word: Any) -> Any:
    """How many zero bits stand below the lowest one; 64 where there is none."""

    def make(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), make


@njit(cache=True, nogil=True)
def letters_of(word):
    """(bit 7 of each byte that is an ASCII letter, digit or underscore; that of each capital; the word in lower case)."""
    plain = word & LOWER_BITS
    small = plain | SMALL
    letters = (small + FROM_A) & ~(small + BEYOND_Z) & HIGH & ~word
    digits = (plain + FROM_0) & ~(plain + BEYOND_9) & HIGH
    lines = ~((plain ^ UNDERSCORES) + LOWER_BITS) & HIGH
    capitals = letters & ~((word & SMALL) << TWO)
    return (letters | digits | lines) & ~word, capitals, word | (capitals >> TWO)


@njit(cache=True, nogil=True)
def first(count):
    """The mask of the first `count` bytes, 0 to 8."""
    return ALL if count >= 8 else (np.uint64(1) << (np.uint64(8) * np.uint64(count))) - np.uint64(1)
