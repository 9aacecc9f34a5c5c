"""Counting and summing magnitudes on a GPU, in Triton: what `order_statistics` asks for, in one pass each.

All that is added up are whole numbers, so that the order in which a card adds them changes nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merge_core.kernels.constants import SELECT_RANGE
from merge_core.kernels.selection import COLUMNS
from merge_core.kernels.triton_passes import draws, kept, load, magnitude_bits, rise

_COLUMNS = tl.constexpr(COLUMNS)
_RANGE = tl.constexpr(SELECT_RANGE)

CHUNK = 4096
"""Elements that `find_ends` reads at once."""


@triton.jit
def _task_vector(table, base, base_kind, at, inside, HAS_BASE: tl.constexpr, ALIGNED: tl.constexpr):
    value = load(tl.load(table), tl.load(table + 1), at, inside, ALIGNED)
    if HAS_BASE:
        value = value - load(base, base_kind, at, inside, ALIGNED)
    return value


@triton.jit
def _in_units(value, unit):
    return (tl.abs(value) * tl.load(unit) * tl.load(unit)).to(tl.int32).to(tl.int64)


@triton.jit
def largest_magnitude(
    table,
    base,
    base_kind,
    largest,
    count,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Raise ``largest``, int32 (1,), to the bits of the largest magnitude.

    Args:
        table: int64 (9,): as a row of that of `triton_passes.combine`.
        base, base_kind: as there.
        largest: see above.
        count: of the elements.
        ALIGNED: as there.
    """
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < count
    value = _task_vector(table, base, base_kind, at, inside, HAS_BASE, ALIGNED)
    tl.atomic_max(largest, tl.max(magnitude_bits(value)))


@triton.jit
def sum_magnitudes(
    table,
    base,
    base_kind,
    unit,
    total,
    count,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Add `eager.sum_magnitudes` to ``total``, int64 (1,); ``unit`` is float32 (1,), the rest as for the largest."""
    start = tl.program_id(0).to(tl.int64) * SIZE
    at = start + tl.arange(0, SIZE)
    inside = at < count
    value = _task_vector(table, base, base_kind, at, inside, HAS_BASE, ALIGNED)
    value = kept(value, start, at, inside, table + 2, SIZE)
    tl.atomic_add(total, tl.sum(_in_units(value, unit)))


@triton.jit
def sum_by_draw(
    table,
    base,
    base_kind,
    unit,
    sums,
    count,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    RANKED: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Add `eager.sum_by_draw` to ``sums``, int64 (2¹⁷,), by the table's rule."""
    start = tl.program_id(0).to(tl.int64) * SIZE
    at = start + tl.arange(0, SIZE)
    inside = at < count
    value = _task_vector(table, base, base_kind, at, inside, HAS_BASE, ALIGNED)
    places = draws(start, tl.load(table + 3), tl.load(table + 4), SIZE).to(tl.int32) + 65536
    if RANKED:
        places = places - rise(at, inside, table + 2).to(tl.int32)
    tl.atomic_add(sums + places, _in_units(value, unit), mask=inside)


@triton.jit
def count_magnitudes(
    table,
    base,
    base_kind,
    counts,
    count,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    LOW_BITS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Add to ``counts``, int64 (2³²⁻ˡᵒʷ,), how often each code of `eager.count_magnitudes` occurs.

    ``table``, ``base`` and ``base_kind`` are as for `largest_magnitude`.
    """
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < count
    words = magnitude_bits(_task_vector(table, base, base_kind, at, inside, HAS_BASE, ALIGNED))
    codes = (words >> LOW_BITS) * 2 + ((words & ((1 << LOW_BITS) - 1)) != 0).to(tl.int32)
    tl.atomic_add(counts + codes, tl.full((SIZE,), 1, tl.int64), mask=inside)


@triton.jit
def find_ends(
    table,
    base,
    base_kind,
    count,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    PART: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Write positions into a table that says of them which of equal entries they follow, see `selection.AfterEqual`.

    Program ``program_id(0)`` takes a row, and ``program_id(1)`` the lower or the upper end of its range.

    Args:
        table: as that of `triton_passes.combine`; other rules have 0 where the number is.
        base, base_kind, count, ALIGNED: as there.
    """
    row = table + tl.program_id(0) * _COLUMNS
    rule, side = row + 2, tl.program_id(1)
    number = tl.where(tl.load(rule) == _RANGE, tl.load(rule + 5 + side), 0).to(tl.int32)
    if number > 0:
        bits = tl.load(rule + 1 + 2 * side).to(tl.int32)
        first = tl.multiple_of(tl.load(rule + 2 + 2 * side), SIZE)
        for step in range(PART // SIZE):
            at = first + step * SIZE + tl.arange(0, SIZE)
            inside = at < count
            value = _task_vector(row, base, base_kind, at, inside, HAS_BASE, ALIGNED)
            equal = (inside & (magnitude_bits(value) == bits)).to(tl.int32)
            found = tl.sum(equal)
            if (number > 0) & (number <= found):
                places = tl.arange(0, SIZE)
                place = tl.sum(tl.where((equal > 0) & (tl.cumsum(equal) == number), places, 0))
                tl.store(rule + 2 + 2 * side, first + step * SIZE + place + 1)
            number = number - found


@triton.jit
def count_by_part(
    table,
    base,
    base_kind,
    places,
    values,
    counts,
    count,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    LOW_BITS: tl.constexpr,
    PART: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Add to ``counts``, int64 (parts, values), how often each value occurs in each ``PART`` elements.

    Args:
        table, base, base_kind: as for `largest_magnitude`.
        places: int32 (2³¹⁻ˡᵒʷ,): which value a bin begins with, -1 for none.
        values: how many there are.
        counts: see above; ``SIZE`` divides ``PART``.
        count: of the elements.
    """
    start = tl.program_id(0).to(tl.int64) * SIZE
    at = start + tl.arange(0, SIZE)
    inside = at < count
    words = magnitude_bits(_task_vector(table, base, base_kind, at, inside, HAS_BASE, ALIGNED))
    place = tl.load(places + (words >> LOW_BITS), mask=inside, other=-1)
    begins = inside & ((words & ((1 << LOW_BITS) - 1)) == 0) & (place >= 0)
    tl.atomic_add(counts + (start // PART) * values + place, tl.full((SIZE,), 1, tl.int64), mask=begins)
