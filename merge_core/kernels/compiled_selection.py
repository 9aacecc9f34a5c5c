"""Dropping entries of a task vector, compiled by numba: what a row of the table of selections keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from merge_core.kernels.compiled_elements import as_bits, inlined, pointer
from merge_core.kernels.constants import SELECT_ALL, SELECT_RANDOM, SELECT_RANGE, SELECT_RANKED, UNBOUNDED


@inlined
def _select_between(values: Any, least: Any, width: Any) -> None:
    for i in range(values.size):
        value = values[i]
        # Below the least it wraps around to a large number, so one comparison does.
        above = np.uint32((as_bits(value) & np.uint32(0x7FFFFFFF)) - least)
        values[i] = value if above < width else np.float32(0)


@inlined
def _mix(word: Any) -> Any:
    """`lowbias32`, see `random_numbers.draws`."""
    word = np.uint32(word ^ (word >> np.uint32(16)))
    word = np.uint32(word * np.uint32(0x21F0AAAD))
    word = np.uint32(word ^ (word >> np.uint32(15)))
    word = np.uint32(word * np.uint32(0xD35A2D97))
    return np.uint32(word ^ (word >> np.uint32(15)))


@inlined
def draw(first: Any, low: Any, high: Any, words: Any) -> None:
    """Two draws in every word from ``first`` on: the lower half is the even one, as memory of today's processors is."""
    for i in range(words.size):
        word = _mix(np.uint32(np.uint32(np.uint32(i) + first) ^ low))
        words[i] = _mix(np.uint32(word + high))


@inlined
def _select_random(values: Any, draws: Any, limit: Any) -> None:
    for i in range(values.size):
        value = values[i]
        values[i] = value if np.uint32(draws[i]) < limit else np.float32(0)


@inlined
def _select_ranked(values: Any, draws: Any, ranks: Any, least: Any, slope: Any) -> None:
    for i in range(values.size):
        value = values[i]
        limit = np.uint32(least + np.uint32(np.uint32(slope * np.uint32(ranks[i])) >> np.uint32(16)))
        values[i] = value if np.uint32(draws[i]) < limit else np.float32(0)


@inlined
def _select_range(values: Any, start: int, low: int, low_end: int, high: int, high_end: int) -> None:
    """Zero what is outside the range, see `selection.MagnitudeRange`."""
    # A tie is decided by its position, so there are up to three stretches, each with two plain bounds.
    size = values.size
    begin = 0
    while begin < size:
        end = size
        if start + begin < low_end:
            end = min(end, low_end - start)
        if start + begin < high_end:
            end = min(end, high_end - start)
        least = np.uint32(low if start + begin < low_end else low + 1)
        most = np.uint32(high if start + begin < high_end else high + 1)
        _select_between(values[begin:end], least, np.uint32(most - least))
        begin = end


@inlined
def has_same_bounds(rule: Any, start: int, end: int) -> bool:
    """Whether a range has the same bounds from ``start`` to ``end``, see `_select_range`."""
    return not (start < rule[2] < end or start < rule[4] < end)


@inlined
def bounds(rule: Any, start: int) -> Any:
    """Least magnitude and width of the range at ``start``; of everything when nothing is dropped."""
    if rule[0] == SELECT_ALL:
        return np.uint32(0), np.uint32(UNBOUNDED)
    least = np.uint32(rule[1] if start < rule[2] else rule[1] + 1)
    most = np.uint32(rule[3] if start < rule[4] else rule[3] + 1)
    return least, np.uint32(most - least)


@inlined
def draw_of(rule: Any, start: int, words: Any) -> Any:
    """A rule's draws from ``start`` on, an even number, into ``words``; returns the lowest limit of what is drawn."""
    halves = rule.view(np.uint32)  # of 64-bit numbers, arithmetic would stay at 64 bits
    draw(np.uint32(start // 2), halves[2], halves[4], words)
    return halves[6]


@inlined
def select(values: Any, start: int, rule: Any, words: Any) -> None:
    """Zero what a row of the rule table drops.

    Args:
        values: float32.
        start: their first position, an even number.
        rule: int64 (7,), as `dispatch` makes it.
        words: uint32, half as many as there are values or more: scratch for the draws.
    """
    if rule[0] == SELECT_RANGE:
        _select_range(values, start, rule[1], rule[2], rule[3], rule[4])
    elif rule[0] == SELECT_RANDOM:
        limit = draw_of(rule, start, words)
        _select_random(values, words.view(np.uint16), limit)
    elif rule[0] == SELECT_RANKED:
        least = draw_of(rule, start, words)
        address, size = rule[5] + rule[6] * start, values.size
        draws, slope = words.view(np.uint16), np.uint32(rule[4])
        if rule[6] == 2:
            _select_ranked(values, draws, carray(pointer(address), (size,), np.uint16), least, slope)
        else:
            _select_ranked(values, draws, carray(pointer(address), (size,), np.int32), least, slope)
