"""Counting magnitudes, compiled by numba: what order statistics are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from merge_core.kernels.compiled_elements import STRIP, as_bits, compiled, difference, inlined


@compiled
def count_magnitudes(source: Any, base: Any, low_bits: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (2³²⁻ˡᵒʷ,), how often each code of `eager.count_magnitudes` occurs."""
    scratch = np.empty((2, STRIP), np.float32)
    codes = np.empty(STRIP, np.uint32)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        _encode(difference(source, base, start, size, scratch), np.uint32(low_bits), codes)
        for i in range(size):
            counts[codes[i]] += np.uint32(1)


@compiled
def count_low_bits(source: Any, base: Any, low_bits: int, number: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (2ˡᵒʷ,), the low bits of the magnitudes of bin ``number``."""
    scratch = np.empty((2, STRIP), np.float32)
    least, width = np.uint32(number << low_bits), np.uint32(1 << low_bits)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        delta = difference(source, base, start, size, scratch)
        for begin in range(0, size, 64):
            part = delta[begin : min(begin + 64, size)]
            # A bin is rare, and counting is vectorised where what follows is not.
            if _count_between(part, least, width) == np.uint32(0):
                continue
            for i in range(part.size):
                word = np.uint32(np.uint32(as_bits(part[i]) & np.uint32(0x7FFFFFFF)) - least)
                if word < width:
                    counts[word] += np.uint32(1)


@compiled
def count_equal(source: Any, base: Any, bits: int, part: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, one for each ``part`` elements, how many magnitudes are ``bits``; parts start with a strip."""
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        delta = difference(source, base, start, size, scratch)
        counts[start // part] += _count_between(delta, np.uint32(bits), np.uint32(1))


@compiled
def find_equal(source: Any, base: Any, bits: int, number: int, span: Any) -> int:
    """Position of the ``number``-th magnitude (from 1) of a span that is ``bits``; -1 when there are fewer."""
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        delta = difference(source, base, start, min(STRIP, span[1] - start), scratch)
        for i in range(delta.size):
            if (as_bits(delta[i]) & np.uint32(0x7FFFFFFF)) == np.uint32(bits):
                number -= 1
                if number == 0:
                    return start + i
    return -1


@compiled
def count_by_part(source: Any, base: Any, low_bits: int, places: Any, part: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (parts, values + 1), how often each value occurs in each ``part`` elements.

    Args:
        source, base: int64 (2,): address and dtype code.
        low_bits: that are 0 in the values.
        places: uint16 (2³¹⁻ˡᵒʷ,): which value a bin begins with, the number of values for none.
        part, counts: see above; the last column is anybody's. Parts start with a strip.
        span: int64 (2,).
    """
    scratch = np.empty((2, STRIP), np.float32)
    shift, rest = np.uint32(low_bits), np.uint32((1 << low_bits) - 1)
    for start in range(span[0], span[1], STRIP):
        delta = difference(source, base, start, min(STRIP, span[1] - start), scratch)
        row = counts[start // part]
        others = np.uint16(row.size - 1)
        for i in range(delta.size):
            word = np.uint32(as_bits(delta[i]) & np.uint32(0x7FFFFFFF))
            place = places[word >> shift]
            row[place if (word & rest) == np.uint32(0) else others] += np.uint32(1)


@inlined
def _encode(values: Any, low_bits: Any, codes: Any) -> None:
    """Twice the bin, and one more where a low bit is set: vectorised, where counting is not."""
    rest = np.uint32(np.uint32(np.uint32(1) << low_bits) - np.uint32(1))
    for i in range(values.size):
        word = np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF))
        codes[i] = np.uint32(word >> low_bits) + np.uint32(np.uint32(word + rest) >> low_bits)


@inlined
def _count_between(values: Any, least: Any, width: Any) -> Any:
    count = np.uint32(0)
    for i in range(values.size):
        above = np.uint32(np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF)) - least)
        count = np.uint32(count + (np.uint32(1) if above < width else np.uint32(0)))
    return count
