"""Counting magnitudes on a GPU, in Triton: what `order_statistics` prepares, in one pass each."""

from __future__ import annotations

import triton
import triton.language as tl

from merge_core.kernels.triton_passes import load, magnitude_bits


@triton.jit
def _words(
    table,
    base,
    base_kind,
    at,
    inside,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    value = load(tl.load(table), tl.load(table + 1), at, inside, ALIGNED)
    if HAS_BASE:
        value = value - load(base, base_kind, at, inside, ALIGNED)
    return magnitude_bits(value)


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

    ``table``, ``base`` and ``base_kind`` are as for `triton_passes.block_sums`.
    """
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < count
    words = _words(table, base, base_kind, at, inside, HAS_BASE, ALIGNED)
    codes = (words >> LOW_BITS) * 2 + ((words & ((1 << LOW_BITS) - 1)) != 0).to(tl.int32)
    tl.atomic_add(counts + codes, tl.full((SIZE,), 1, tl.int64), mask=inside)


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
        table, base, base_kind: as for `triton_passes.block_sums`.
        places: int32 (2³¹⁻ˡᵒʷ,): which value a bin begins with, -1 for none.
        values: how many there are.
        counts: see above; ``SIZE`` divides ``PART``.
        count: of the elements.
    """
    start = tl.program_id(0).to(tl.int64) * SIZE
    at = start + tl.arange(0, SIZE)
    inside = at < count
    words = _words(table, base, base_kind, at, inside, HAS_BASE, ALIGNED)
    place = tl.load(places + (words >> LOW_BITS), mask=inside, other=-1)
    begins = inside & ((words & ((1 << LOW_BITS) - 1)) == 0) & (place >= 0)
    tl.atomic_add(counts + (start // PART) * values + place, tl.full((SIZE,), 1, tl.int64), mask=begins)
