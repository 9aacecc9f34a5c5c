"""The passes over the elements of a merge, compiled by numba.

Each makes one pass over its sources in the dtype they are stored in, in strips that stay in the first-level cache. A
call works on a range of elements, so that threads share a tensor; no result depends on how it is shared. The same
arithmetic in plain torch is in `eager`, to the bit: sums have a fixed order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from merge_core.kernels.compiled_elements import (
    STRIP,
    as_bits,
    as_float,
    compiled,
    from_half,
    inlined,
    load,
    pointer,
    prefetch,
    round_to,
    store,
    task_vector,
)
from merge_core.kernels.compiled_selection import bounds, draw_of, has_same_bounds, select
from merge_core.kernels.constants import (
    BFLOAT16,
    FLOAT32,
    NO_WEIGHT,
    SELECT_ALL,
    SELECT_RANDOM,
    SELECT_RANGE,
    SELECT_RANKED,
)


@inlined
def _add_scaled_source(address: int, kind: int, start: int, factor: Any, sums: Any) -> None:
    """Load, scale and add in one pass: a plain weighted average does nothing else."""
    size = sums.size
    if kind == BFLOAT16:
        narrow = carray(pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            sums[i] = sums[i] + np.float32(as_float(np.uint32(narrow[i]) << np.uint32(16)) * factor)
    elif kind == FLOAT32:
        wide = carray(pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            sums[i] = sums[i] + np.float32(wide[i] * factor)
    else:
        narrow = carray(pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            sums[i] = sums[i] + np.float32(from_half(np.uint32(narrow[i])) * factor)


@inlined
def _term(value: Any, origin: Any, least: Any, width: Any, factor: Any) -> Any:
    delta = np.float32(value - origin)
    # Below the least it wraps around to a large number, so one comparison does.
    above = np.uint32(np.uint32(as_bits(delta) & np.uint32(0x7FFFFFFF)) - least)
    return np.float32((delta if above < width else np.float32(0)) * factor)


@inlined
def _add_range(
    address: int, kind: int, start: int, base: Any, least: Any, width: Any, factor: Any, values: Any, sums: Any
) -> None:
    """Load, subtract the base, keep magnitudes in a range, scale, add: in one pass. The term stays in ``values``."""
    size = sums.size
    if kind == FLOAT32:
        wide = carray(pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            value = _term(wide[i], base[i], least, width, factor)
            values[i] = value
            sums[i] = sums[i] + value
        return
    narrow = carray(pointer(address + 2 * start), (size,), np.uint16)
    if kind == BFLOAT16:
        for i in range(size):
            value = _term(as_float(np.uint32(narrow[i]) << np.uint32(16)), base[i], least, width, factor)
            values[i] = value
            sums[i] = sums[i] + value
        return
    for i in range(size):
        value = _term(from_half(np.uint32(narrow[i])), base[i], least, width, factor)
        values[i] = value
        sums[i] = sums[i] + value


@inlined
def _add_drawn(
    address: int, start: int, base: Any, draws: Any, limit: Any, factor: Any, values: Any, sums: Any
) -> None:
    """As `_add_range`, of bfloat16 and what is drawn below a limit."""
    narrow = carray(pointer(address + 2 * start), (sums.size,), np.uint16)
    for i in range(sums.size):
        delta = np.float32(as_float(np.uint32(narrow[i]) << np.uint32(16)) - base[i])
        value = np.float32((delta if np.uint32(draws[i]) < limit else np.float32(0)) * factor)
        values[i] = value
        sums[i] = sums[i] + value


@inlined
def _add_ranked(
    address: int,
    start: int,
    base: Any,
    draws: Any,
    ranks: Any,
    least: Any,
    slope: Any,
    factor: Any,
    values: Any,
    sums: Any,
) -> None:
    """As `_add_drawn`, with a limit that rises with the rank."""
    narrow = carray(pointer(address + 2 * start), (sums.size,), np.uint16)
    for i in range(sums.size):
        delta = np.float32(as_float(np.uint32(narrow[i]) << np.uint32(16)) - base[i])
        limit = np.uint32(least + np.uint32(np.uint32(slope * np.uint32(ranks[i])) >> np.uint32(16)))
        value = np.float32((delta if np.uint32(draws[i]) < limit else np.float32(0)) * factor)
        values[i] = value
        sums[i] = sums[i] + value


@inlined
def _scale_and_add(values: Any, factor: Any, sums: Any) -> None:
    for i in range(values.size):
        value = np.float32(values[i] * factor)
        values[i] = value
        sums[i] = sums[i] + value


@inlined
def _add(values: Any, sums: Any) -> None:
    for i in range(values.size):
        sums[i] = sums[i] + values[i]


@inlined
def _add_elected(values: Any, total: Any, chosen: Any) -> None:
    """Add the values whose sign is the total's, a total of 0 counting as plus."""
    for i in range(values.size):
        value = values[i]
        along = value if total[i] >= np.float32(0) else -value
        chosen[i] = chosen[i] + (value if along > np.float32(0) else np.float32(0))


@inlined
def _add_elected_and_count(values: Any, weight: Any, total: Any, chosen: Any, shares: Any) -> None:
    for i in range(values.size):
        value = values[i]
        along = value if total[i] >= np.float32(0) else -value
        agrees = along > np.float32(0)
        chosen[i] = chosen[i] + (value if agrees else np.float32(0))
        shares[i] = shares[i] + (weight if agrees else np.float32(0))


@inlined
def _elected(total: Any, chosen: Any, share: Any, scaling: Any) -> Any:
    # A NaN or infinity votes for no sign, so it would vanish here, and with it the error it must cause.
    value = np.float32(chosen + np.float32(total - total))
    share = share if abs(share) >= np.float32(NO_WEIGHT) else np.float32(1)
    return np.float32(np.float32(value / share) * scaling)


@inlined
def _settle(total: Any, chosen: Any, shares: Any, scaling: Any) -> None:
    """The elected sum over the shares that took part, scaled, into ``total``."""
    for i in range(total.size):
        total[i] = _elected(total[i], chosen[i], shares[i], scaling)


@inlined
def _write_bfloat16(total: Any, origin: Any, address: int, start: int) -> Any:
    """Add, round and store in one pass; returns the largest magnitude's bits, see `round_to`."""
    narrow = carray(pointer(address + 2 * start), (total.size,), np.uint16)
    largest = np.uint32(0)
    for i in range(total.size):
        bits = as_bits(np.float32(total[i] + origin[i]))
        # To nearest, ties to even. What is not finite, or rounds to infinity, is seen from the largest.
        rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
        narrow[i] = np.uint16(rounded >> np.uint32(16))
        largest = max(largest, np.uint32(bits & np.uint32(0x7FFFFFFF)))
    return np.uint32(largest + np.uint32(0x8000))


@inlined
def _write(total: Any, origin: Any, out: Any, start: int) -> Any:
    """Add, round to ``out[1]``, store as ``out[2]``; returns the largest magnitude's bits."""
    if out[1] == BFLOAT16 and out[2] == BFLOAT16:
        return _write_bfloat16(total, origin, out[0], start)
    _add(origin, total)
    largest = round_to(total, out[1])
    store(total, out[2], out[0], start)
    return largest


@compiled
def combine(
    sources: Any, base: Any, rules: Any, factors: Any, weights: Any, elect: bool, scaling: Any, out: Any, span: Any
) -> Any:
    """`eager.combine` on the elements ``span[0]`` to ``span[1]``.

    Args:
        sources: int64 (terms, 2): address and dtype code.
        base: int64 (2,): the same for the base; address 0 is no base.
        rules: int64 (terms, 7): which entries are kept.
        factors: float32 (terms,).
        weights: float32 (terms,); empty when nothing is divided by them.
        elect: keep only the terms whose sign is that of the sum.
        scaling: float32, used with ``elect``.
        out: int64 (3,): address, dtype code of the values, dtype code of the memory.
        span: int64 (2,).

    Returns:
        uint32: bits of the largest magnitude that was written; infinity's or more when there is a NaN or infinity.
    """
    has_base = base[0] != 0
    normalize = weights.size > 0
    terms = factors.size
    scratch = np.empty((4, STRIP + 16), np.float32)
    values = np.empty((terms if elect else 1, STRIP + 16), np.float32)
    words = np.empty(STRIP // 2, np.uint32)
    largest = np.uint32(0)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        origin, total, chosen, shares = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
        next_end = min(start + 2 * STRIP, span[1])
        if has_base:
            prefetch(base[0], base[1], start + STRIP, next_end)
            for term in range(terms):
                prefetch(sources[term, 0], sources[term, 1], start + STRIP, next_end)
            load(base[0], base[1], start, origin)
        else:
            origin[:] = np.float32(0)
        total[:] = np.float32(0)
        for term in range(terms):
            if not (has_base or elect or rules[term, 0] != SELECT_ALL):
                _add_scaled_source(sources[term, 0], sources[term, 1], start, factors[term], total)
                continue
            value = values[term if elect else 0, :size]
            address, kind, rule = sources[term, 0], sources[term, 1], rules[term]
            if rule[0] == SELECT_ALL or (rule[0] == SELECT_RANGE and has_same_bounds(rule, start, start + size)):
                least, width = bounds(rule, start)
                _add_range(address, kind, start, origin, least, width, factors[term], value, total)
                continue
            if kind == BFLOAT16 and rule[0] == SELECT_RANDOM:
                limit = draw_of(rule, start, words)
                _add_drawn(address, start, origin, words.view(np.uint16), limit, factors[term], value, total)
                continue
            if kind == BFLOAT16 and rule[0] == SELECT_RANKED and rule[6] == 2:
                least = draw_of(rule, start, words)
                ranks = carray(pointer(rule[5] + 2 * start), (size,), np.uint16)
                slope = np.uint32(rule[4])
                _add_ranked(
                    address, start, origin, words.view(np.uint16), ranks, least, slope, factors[term], value, total
                )
                continue
            task_vector(address, kind, start, origin, True, value)
            select(value, start, rule, words)
            _scale_and_add(value, factors[term], total)
        if elect:
            chosen[:] = np.float32(0)
            shares[:] = np.float32(0 if normalize else 1)
            for term in range(terms):
                if normalize:
                    _add_elected_and_count(values[term, :size], weights[term], total, chosen, shares)
                else:
                    _add_elected(values[term, :size], total, chosen)
            _settle(total, chosen, shares, scaling)
        largest = max(largest, _write(total, origin, out, start))
    return largest


@compiled
def largest_bits(source: Any, span: Any) -> Any:
    """The largest magnitude in a span, as the bits of the source's own dtype without the sign: uint32."""
    size = span[1] - span[0]
    largest = np.uint32(0)
    if source[1] == FLOAT32:
        wide = carray(pointer(source[0] + 4 * span[0]), (size,), np.uint32)
        for i in range(size):
            largest = max(largest, np.uint32(wide[i] & np.uint32(0x7FFFFFFF)))
        return largest
    narrow = carray(pointer(source[0] + 2 * span[0]), (size,), np.uint16)
    for i in range(size):
        largest = max(largest, np.uint32(narrow[i] & np.uint16(0x7FFF)))
    return largest
