"""Sums of magnitudes, compiled by numba: in whole units, so that their order changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from merge_core.kernels.compiled_elements import STRIP, as_bits, compiled, difference, inlined, pointer
from merge_core.kernels.compiled_selection import draw, select
from merge_core.kernels.constants import SELECT_RANKED


@compiled
def largest_magnitude(source: Any, base: Any, span: Any) -> Any:
    """The bits of the largest magnitude in a span: uint32."""
    scratch = np.empty((2, STRIP), np.float32)
    largest = np.uint32(0)
    for start in range(span[0], span[1], STRIP):
        delta = difference(source, base, start, min(STRIP, span[1] - start), scratch)
        largest = max(largest, _largest(delta))
    return largest


@compiled
def sum_magnitudes(source: Any, base: Any, rule: Any, unit: Any, span: Any) -> Any:
    """`eager.sum_magnitudes` of a span that starts with a strip: int64.

    Args:
        source, base: int64 (2,): address and dtype code.
        rule: int64 (7,): which entries are kept.
        unit: float32, what magnitudes are multiplied by, twice.
        span: int64 (2,).
    """
    scratch = np.empty((2, STRIP), np.float32)
    words = np.empty(STRIP // 2, np.uint32)
    total = np.int64(0)
    for start in range(span[0], span[1], STRIP):
        delta = difference(source, base, start, min(STRIP, span[1] - start), scratch)
        select(delta, start, rule, words)
        total += _in_units(delta, unit)
    return total


@compiled
def sum_by_draw(source: Any, base: Any, rule: Any, unit: Any, sums: Any, span: Any) -> None:
    """Add `eager.sum_by_draw` of a span that starts with a strip to ``sums``: int64; the rest is as above."""
    scratch = np.empty((2, STRIP), np.float32)
    words = np.empty(STRIP // 2, np.uint32)
    places = np.empty(STRIP, np.uint32)
    halves, draws = rule.view(np.uint32), words.view(np.uint16)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        delta = difference(source, base, start, size, scratch)
        draw(np.uint32(start // 2), halves[2], halves[4], words)
        for i in range(size):
            places[i] = np.uint32(draws[i]) + np.uint32(1 << 16)
        if rule[0] == SELECT_RANKED:
            address = rule[5] + rule[6] * start
            if rule[6] == 2:
                _lower(places[:size], carray(pointer(address), (size,), np.uint16), halves[8])
            else:
                _lower(places[:size], carray(pointer(address), (size,), np.int32), halves[8])
        for i in range(size):
            sums[places[i]] += np.int64(np.int32(np.float32(np.float32(abs(delta[i]) * unit) * unit)))


@inlined
def _lower(places: Any, ranks: Any, slope: Any) -> None:
    for i in range(places.size):
        places[i] = np.uint32(places[i] - np.uint32(np.uint32(slope * np.uint32(ranks[i])) >> np.uint32(16)))


@inlined
def _largest(values: Any) -> Any:
    largest = np.uint32(0)
    for i in range(values.size):
        largest = max(largest, np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF)))
    return largest


@inlined
def _in_units(values: Any, unit: Any) -> Any:
    total = np.int64(0)
    for i in range(values.size):
        total += np.int64(np.int32(np.float32(np.float32(abs(values[i]) * unit) * unit)))
    return total
