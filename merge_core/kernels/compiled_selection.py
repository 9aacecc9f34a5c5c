"""Dropping entries of a task vector, compiled by numba: what a row of the table of selections keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from merge_core.kernels.compiled_elements import as_bits, inlined, mix, pointer
from merge_core.kernels.constants import SELECT_ALL, SELECT_MASK, SELECT_RANDOM, SELECT_RANGE, UNBOUNDED


@inlined
def _select_between(values: Any, least: Any, width: Any) -> None:
    for i in range(values.size):
        value = values[i]
        # Below the least it wraps around to a large number, so one comparison does.
        above = np.uint32((as_bits(value) & np.uint32(0x7FFFFFFF)) - least)
        values[i] = value if above < width else np.float32(0)


@inlined
def _select_random(values: Any, start: Any, low: Any, high: Any, limit: Any) -> None:
    for i in range(values.size):
        value = values[i]
        word = np.uint32(np.uint32(np.uint32(i) + start) ^ low)
        word = np.uint32(mix(word) + high)
        draw = np.uint32(mix(word) >> np.uint32(8))
        values[i] = value if draw < limit else np.float32(0)


@inlined
def _select_range(values: Any, start: int, low: int, low_end: int, high: int, high_end: int) -> None:
    """Zero what is outside the range, see `keep.MagnitudeRange`."""
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
def select(values: Any, start: int, rule: Any) -> None:
    """Zero what a row of the rule table drops."""
    if rule[0] == SELECT_RANGE:
        _select_range(values, start, rule[1], rule[2], rule[3], rule[4])
    elif rule[0] == SELECT_RANDOM:
        _select_random(values, np.uint32(start), np.uint32(rule[1]), np.uint32(rule[2]), np.uint32(rule[3]))
    elif rule[0] == SELECT_MASK:
        mask = carray(pointer(rule[1] + start), (values.size,), np.uint8)
        for i in range(values.size):
            value = values[i]
            values[i] = value if mask[i] != np.uint8(0) else np.float32(0)
