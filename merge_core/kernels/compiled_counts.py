"""Counting magnitudes and ranking them, compiled by numba: what order statistics are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from merge_core.kernels.compiled_elements import STRIP, as_bits, compiled, difference, inlined, load, mix, task_vector


@compiled
def count_magnitudes(source: Any, base: Any, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (65536,), how often the upper 16 of a magnitude's 31 bits have each value."""
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        delta = difference(source, base, start, size, scratch)
        for i in range(size):
            counts[(as_bits(delta[i]) & np.uint32(0x7FFFFFFF)) >> np.uint32(15)] += np.uint32(1)


@compiled
def count_low_bits(source: Any, base: Any, number: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (32768,), the lower 15 bits of the magnitudes whose upper 16 are ``number``."""
    scratch = np.empty((2, STRIP), np.float32)
    least, width = np.uint32(number << 15), np.uint32(1 << 15)
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
def count_values(source: Any, base: Any, slots: Any, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (slots, 32768), the lower 15 bits of magnitudes, by the slot of their upper 16.

    Args:
        source, base: int64 (2,): address and dtype code.
        slots: int16 (65536,): the slot of a bin, -1 for bins that are not counted.
        counts: see above.
        span: int64 (2,).
    """
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        delta = difference(source, base, start, min(STRIP, span[1] - start), scratch)
        for i in range(delta.size):
            word = as_bits(delta[i]) & np.uint32(0x7FFFFFFF)
            slot = slots[word >> np.uint32(15)]
            if slot >= 0:
                counts[slot, word & np.uint32(0x7FFF)] += np.uint32(1)


@compiled
def count_values_by_part(source: Any, base: Any, slots: Any, places: Any, part: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (parts, values), how often each value occurs in each ``part`` elements.

    Args:
        source, base, slots: as for `count_values`.
        places: int16 (slots, 32768): which value that is, -1 for values that are not counted.
        part, counts: see above; parts start with a strip.
        span: int64 (2,).
    """
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        delta = difference(source, base, start, min(STRIP, span[1] - start), scratch)
        row = counts[start // part]
        for i in range(delta.size):
            word = as_bits(delta[i]) & np.uint32(0x7FFFFFFF)
            slot = slots[word >> np.uint32(15)]
            if slot >= 0:
                place = places[slot, word & np.uint32(0x7FFF)]
                if place >= 0:
                    row[place] += np.uint32(1)


@inlined
def _count_between(values: Any, least: Any, width: Any) -> Any:
    count = np.uint32(0)
    for i in range(values.size):
        above = np.uint32(np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF)) - least)
        count = np.uint32(count + (np.uint32(1) if above < width else np.uint32(0)))
    return count


@compiled
def rank_rows(source: Any, base: Any, length: int, ranks: Any, rows: Any) -> None:
    """Ranks of magnitudes in the rows ``rows[0]`` to ``rows[1]``, smallest first, equal ones in memory order.

    Args:
        source, base: int64 (2,): address and dtype code.
        length: of a row.
        ranks: uint16 or uint32, flat, of the whole tensor.
        rows: int64 (2,).
    """
    values = np.empty(length, np.float32)
    origin = np.empty(length, np.float32)
    words = np.empty((2, length), np.uint32)
    orders = np.empty((2, length), np.uint32)
    counts = np.empty((3, 2048), np.int64)
    for row in range(rows[0], rows[1]):
        start = row * length
        if base[0] != 0:
            load(base[0], base[1], start, origin)
        task_vector(source[0], source[1], start, origin, base[0] != 0, values)
        counts[:] = 0
        for i in range(length):
            word = np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF))
            words[0, i] = word
            orders[0, i] = np.uint32(i)
            counts[0, word & np.uint32(2047)] += 1
            counts[1, (word >> np.uint32(11)) & np.uint32(2047)] += 1
            counts[2, word >> np.uint32(22)] += 1
        # A stable radix sort, 11 bits at a time.
        for digit in range(3):
            total = 0
            for i in range(2048):
                count = counts[digit, i]
                counts[digit, i] = total
                total += count
            old, new = digit % 2, 1 - digit % 2
            shift = np.uint32(11 * digit)
            for i in range(length):
                word = words[old, i]
                place = (word >> shift) & np.uint32(2047)
                target = counts[digit, place]
                counts[digit, place] = target + 1
                words[new, target] = word
                orders[new, target] = orders[old, i]
        for rank in range(length):
            ranks[start + orders[1, rank]] = rank


@compiled
def draw_by_rank(ranks: Any, key: Any, limits: Any, mask: Any, rows: Any) -> None:
    """Whether the draws in the rows ``rows[0]`` to ``rows[1]`` are under the limits of their ranks.

    Args:
        ranks: as of `rank_rows`.
        key: int64 (2,): the halves of a random key.
        limits: uint32 (length,): what a draw of 24 bits must be under, by rank.
        mask: uint8, flat, of the whole tensor.
        rows: int64 (2,).
    """
    length = limits.size
    draws = np.empty(length, np.uint32)
    for row in range(rows[0], rows[1]):
        start = row * length
        _draw_row(np.uint32(start), np.uint32(key[0]), np.uint32(key[1]), draws)
        own, kept = ranks[start : start + length], mask[start : start + length]
        for i in range(length):
            kept[i] = np.uint8(1) if draws[i] < limits[own[i]] else np.uint8(0)


@inlined
def _draw_row(start: Any, low: Any, high: Any, draws: Any) -> None:
    for i in range(draws.size):
        word = np.uint32(mix(np.uint32(np.uint32(np.uint32(i) + start) ^ low)) + high)
        draws[i] = np.uint32(mix(word) >> np.uint32(8))
