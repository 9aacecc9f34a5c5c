"""The loops over the elements of a merge, compiled by numba; the home of numba.

Each makes one pass over its sources in the dtype they are stored in, in blocks that stay in the first-level
cache. A call works on a range of elements, so that threads share a tensor; no result depends on how it is shared.
The same arithmetic in plain torch is in `eager_kernels`, to the bit: every operation is rounded by itself (numba
contracts nothing to fused multiply-adds), and sums have a fixed order.

Tensors come as (address, dtype code), which spares a compilation for every number of models and every dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 4096
"""Elements per block: a part of the meaning of a sum of magnitudes, see `eager_kernels.block_sums`."""

STRIP = 1024
"""Elements that are worked on together: seven float32 rows of them stay in the first-level cache."""

BFLOAT16, FLOAT32, FLOAT16 = 0, 1, 2
ALL, BAND, DRAWS, MASK = 0, 1, 2, 3

# Sharing the kernel's work with other Python threads needs the lock released; the cache spares every process
# after the first the compilation. Fast-math stays off: it would let sums be reordered.
compiled = njit(nogil=True, cache=True, error_model="numpy")
inlined = njit(nogil=True, cache=True, inline="never", error_model="numpy")


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _as_float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic  # type: ignore[untyped-decorator]
def _as_bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch_line(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To read, into the second-level cache, as data.
        settings = [integer(0), integer(2), integer(1)]
        builder.call(prefetch, [builder.inttoptr(arguments[0], byte), *settings])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@inlined  # type: ignore[untyped-decorator]
def _prefetch(address: int, kind: int, start: int, end: int) -> None:
    """Ask for elements that are needed soon, so that memory works while the processor does."""
    itemsize = 4 if kind == FLOAT32 else 2
    for place in range(address + itemsize * start, address + itemsize * end, 64):
        _prefetch_line(place)


@inlined  # type: ignore[untyped-decorator]
def _from_half(half: Any) -> Any:
    magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
    # 2**112 is the difference of the exponents' biases; exact, for subnormal numbers too.
    scaled = _as_bits(np.float32(_as_float(magnitude) * np.float32(2.0**112)))
    special = np.uint32(magnitude | np.uint32(0x7F800000))
    magnitude = special if np.uint32(half & np.uint32(0x7C00)) == np.uint32(0x7C00) else scaled
    return _as_float(np.uint32(magnitude | np.uint32((half & np.uint32(0x8000)) << np.uint32(16))))


@inlined  # type: ignore[untyped-decorator]
def _load(address: int, kind: int, start: int, values: Any) -> None:
    """Elements from ``start`` on, as float32."""
    size = values.size
    if kind == FLOAT32:
        wide = carray(_pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            values[i] = wide[i]
        return
    narrow = carray(_pointer(address + 2 * start), (size,), np.uint16)
    if kind == BFLOAT16:
        for i in range(size):
            values[i] = _as_float(np.uint32(narrow[i]) << np.uint32(16))
        return
    for i in range(size):
        values[i] = _from_half(np.uint32(narrow[i]))


@inlined  # type: ignore[untyped-decorator]
def _to_half(value: Any) -> Any:
    """Bits of the nearest float16, ties to even: the exponent is aligned by adding a power of two."""
    bits = _as_bits(value)
    doubled = np.uint32(bits << np.uint32(1))
    magnitude = _as_float(np.uint32(bits & np.uint32(0x7FFFFFFF)))
    rounded = np.float32(np.float32(magnitude * np.float32(2.0**112)) * np.float32(2.0**-110))
    bias = max(np.uint32(doubled & np.uint32(0xFF000000)), np.uint32(0x71000000))
    aligned = np.float32(_as_float(np.uint32((bias >> np.uint32(1)) + np.uint32(0x07800000))) + rounded)
    word = _as_bits(aligned)
    result = np.uint32(((word >> np.uint32(13)) & np.uint32(0x7C00)) + (word & np.uint32(0x0FFF)))
    if doubled > np.uint32(0xFF000000):
        result = np.uint32(0x7E00)
    return np.uint16(result | ((bits >> np.uint32(16)) & np.uint32(0x8000)))


@inlined  # type: ignore[untyped-decorator]
def _round(values: Any, kind: int) -> Any:
    """Round in place to what a dtype can hold; returns the largest magnitude's bits (infinity's or more: bad)."""
    largest = np.uint32(0)
    if kind == BFLOAT16:
        for i in range(values.size):
            bits = _as_bits(values[i])
            # To nearest, ties to even. A NaN would round into the sign bit; it stays as it is.
            rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
            rounded = np.uint32(rounded & np.uint32(0xFFFF0000))
            magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
            kept = rounded if magnitude <= np.uint32(0x7F800000) else bits
            largest = max(largest, np.uint32(kept & np.uint32(0x7FFFFFFF)))
            values[i] = _as_float(kept)
    elif kind == FLOAT32:
        for i in range(values.size):
            largest = max(largest, np.uint32(_as_bits(values[i]) & np.uint32(0x7FFFFFFF)))
    else:
        for i in range(values.size):
            values[i] = _from_half(np.uint32(_to_half(values[i])))
            largest = max(largest, np.uint32(_as_bits(values[i]) & np.uint32(0x7FFFFFFF)))
    return largest


@inlined  # type: ignore[untyped-decorator]
def _store(values: Any, kind: int, address: int, start: int) -> None:
    size = values.size
    if kind == FLOAT32:
        wide = carray(_pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            wide[i] = values[i]
        return
    narrow = carray(_pointer(address + 2 * start), (size,), np.uint16)
    if kind == BFLOAT16:
        for i in range(size):
            narrow[i] = np.uint16(_as_bits(values[i]) >> np.uint32(16))
    else:
        for i in range(size):
            narrow[i] = _to_half(values[i])


@inlined  # type: ignore[untyped-decorator]
def _mix(word: Any) -> Any:
    """`triple32`, see `random_numbers.uniform`."""
    word = np.uint32(word ^ (word >> np.uint32(17)))
    word = np.uint32(word * np.uint32(0xED5AD4BB))
    word = np.uint32(word ^ (word >> np.uint32(11)))
    word = np.uint32(word * np.uint32(0xAC4C1B51))
    word = np.uint32(word ^ (word >> np.uint32(15)))
    word = np.uint32(word * np.uint32(0x31848BAB))
    return np.uint32(word ^ (word >> np.uint32(14)))


@inlined  # type: ignore[untyped-decorator]
def _keep_between(values: Any, least: Any, width: Any) -> None:
    for i in range(values.size):
        value = values[i]
        # Below the least it wraps around to a large number, so one comparison does.
        above = np.uint32((_as_bits(value) & np.uint32(0x7FFFFFFF)) - least)
        values[i] = value if above < width else np.float32(0)


@inlined  # type: ignore[untyped-decorator]
def _keep_drawn(values: Any, start: Any, low: Any, high: Any, limit: Any) -> None:
    for i in range(values.size):
        value = values[i]
        word = np.uint32(np.uint32(np.uint32(i) + start) ^ low)
        word = np.uint32(_mix(word) + high)
        draw = np.uint32(_mix(word) >> np.uint32(8))
        values[i] = value if draw < limit else np.float32(0)


@inlined  # type: ignore[untyped-decorator]
def _keep_band(values: Any, start: int, low: int, low_end: int, high: int, high_end: int) -> None:
    """Zero what is outside the band, see `keep.Band`."""
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
        _keep_between(values[begin:end], least, np.uint32(most - least))
        begin = end


@inlined  # type: ignore[untyped-decorator]
def _is_plain(rule: Any, start: int, end: int) -> bool:
    """Whether a band has the same bounds from ``start`` to ``end``, see `_keep_band`."""
    return not (start < rule[2] < end or start < rule[4] < end)


@inlined  # type: ignore[untyped-decorator]
def _bounds(rule: Any, start: int) -> Any:
    """Least magnitude and width of the band at ``start``; of everything when there is no band."""
    if rule[0] == ALL:
        return np.uint32(0), np.uint32(0x80000000)
    least = np.uint32(rule[1] if start < rule[2] else rule[1] + 1)
    most = np.uint32(rule[3] if start < rule[4] else rule[3] + 1)
    return least, np.uint32(most - least)


@inlined  # type: ignore[untyped-decorator]
def _keep(values: Any, start: int, rule: Any) -> None:
    """Zero what a row of the rule table drops."""
    if rule[0] == BAND:
        _keep_band(values, start, rule[1], rule[2], rule[3], rule[4])
    elif rule[0] == DRAWS:
        _keep_drawn(values, np.uint32(start), np.uint32(rule[1]), np.uint32(rule[2]), np.uint32(rule[3]))
    elif rule[0] == MASK:
        mask = carray(_pointer(rule[1] + start), (values.size,), np.uint8)
        for i in range(values.size):
            value = values[i]
            values[i] = value if mask[i] != np.uint8(0) else np.float32(0)


@inlined  # type: ignore[untyped-decorator]
def _task_vector(address: int, kind: int, start: int, base: Any, has_base: bool, values: Any) -> None:
    """Load and subtract the base, in one pass."""
    size = values.size
    if not has_base:
        _load(address, kind, start, values)
    elif kind == BFLOAT16:
        narrow = carray(_pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            values[i] = _as_float(np.uint32(narrow[i]) << np.uint32(16)) - base[i]
    elif kind == FLOAT32:
        wide = carray(_pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            values[i] = wide[i] - base[i]
    else:
        narrow = carray(_pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            values[i] = _from_half(np.uint32(narrow[i])) - base[i]


@inlined  # type: ignore[untyped-decorator]
def _add_scaled_source(address: int, kind: int, start: int, factor: Any, sums: Any) -> None:
    """Load, scale and add in one pass: a plain weighted average does nothing else."""
    size = sums.size
    if kind == BFLOAT16:
        narrow = carray(_pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            sums[i] = sums[i] + np.float32(_as_float(np.uint32(narrow[i]) << np.uint32(16)) * factor)
    elif kind == FLOAT32:
        wide = carray(_pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            sums[i] = sums[i] + np.float32(wide[i] * factor)
    else:
        narrow = carray(_pointer(address + 2 * start), (size,), np.uint16)
        for i in range(size):
            sums[i] = sums[i] + np.float32(_from_half(np.uint32(narrow[i])) * factor)


@inlined  # type: ignore[untyped-decorator]
def _term(value: Any, origin: Any, least: Any, width: Any, factor: Any) -> Any:
    delta = np.float32(value - origin)
    # Below the least it wraps around to a large number, so one comparison does.
    above = np.uint32(np.uint32(_as_bits(delta) & np.uint32(0x7FFFFFFF)) - least)
    return np.float32((delta if above < width else np.float32(0)) * factor)


@inlined  # type: ignore[untyped-decorator]
def _add_band(
    address: int, kind: int, start: int, base: Any, least: Any, width: Any, factor: Any, values: Any, sums: Any
) -> None:
    """Load, subtract the base, keep magnitudes in a range, scale, add: in one pass. The term stays in ``values``."""
    size = sums.size
    if kind == FLOAT32:
        wide = carray(_pointer(address + 4 * start), (size,), np.float32)
        for i in range(size):
            value = _term(wide[i], base[i], least, width, factor)
            values[i] = value
            sums[i] = sums[i] + value
        return
    narrow = carray(_pointer(address + 2 * start), (size,), np.uint16)
    if kind == BFLOAT16:
        for i in range(size):
            value = _term(_as_float(np.uint32(narrow[i]) << np.uint32(16)), base[i], least, width, factor)
            values[i] = value
            sums[i] = sums[i] + value
        return
    for i in range(size):
        value = _term(_from_half(np.uint32(narrow[i])), base[i], least, width, factor)
        values[i] = value
        sums[i] = sums[i] + value


@inlined  # type: ignore[untyped-decorator]
def _scale_and_add(values: Any, factor: Any, sums: Any) -> None:
    for i in range(values.size):
        value = np.float32(values[i] * factor)
        values[i] = value
        sums[i] = sums[i] + value


@inlined  # type: ignore[untyped-decorator]
def _add(values: Any, sums: Any) -> None:
    for i in range(values.size):
        sums[i] = sums[i] + values[i]


@inlined  # type: ignore[untyped-decorator]
def _add_elected(values: Any, total: Any, chosen: Any) -> None:
    """Add the values whose sign is the total's, a total of 0 counting as plus."""
    for i in range(values.size):
        value = values[i]
        along = value if total[i] >= np.float32(0) else -value
        chosen[i] = chosen[i] + (value if along > np.float32(0) else np.float32(0))


@inlined  # type: ignore[untyped-decorator]
def _add_elected_and_count(values: Any, weight: Any, total: Any, chosen: Any, shares: Any) -> None:
    for i in range(values.size):
        value = values[i]
        along = value if total[i] >= np.float32(0) else -value
        agrees = along > np.float32(0)
        chosen[i] = chosen[i] + (value if agrees else np.float32(0))
        shares[i] = shares[i] + (weight if agrees else np.float32(0))


@inlined  # type: ignore[untyped-decorator]
def _elected(total: Any, chosen: Any, share: Any, scaling: Any) -> Any:
    # A NaN or infinity votes for no sign, so it would vanish here, and with it the error it must cause.
    value = np.float32(chosen + np.float32(total - total))
    share = share if abs(share) >= np.float32(1e-8) else np.float32(1)
    return np.float32(np.float32(value / share) * scaling)


@inlined  # type: ignore[untyped-decorator]
def _settle(total: Any, chosen: Any, shares: Any, scaling: Any) -> None:
    """The elected sum over the shares that took part, scaled, into ``total``."""
    for i in range(total.size):
        total[i] = _elected(total[i], chosen[i], shares[i], scaling)


@inlined  # type: ignore[untyped-decorator]
def _write_bfloat16(total: Any, origin: Any, address: int, start: int) -> Any:
    """Add, round and store in one pass; returns the largest magnitude's bits, see `_round`."""
    narrow = carray(_pointer(address + 2 * start), (total.size,), np.uint16)
    largest = np.uint32(0)
    for i in range(total.size):
        bits = _as_bits(np.float32(total[i] + origin[i]))
        # To nearest, ties to even. What is not finite, or rounds to infinity, is seen from the largest.
        rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
        narrow[i] = np.uint16(rounded >> np.uint32(16))
        largest = max(largest, np.uint32(bits & np.uint32(0x7FFFFFFF)))
    return np.uint32(largest + np.uint32(0x8000))


@inlined  # type: ignore[untyped-decorator]
def _write(total: Any, origin: Any, out: Any, start: int) -> Any:
    """Add, round to ``out[1]``, store as ``out[2]``; returns the largest magnitude's bits."""
    if out[1] == BFLOAT16 and out[2] == BFLOAT16:
        return _write_bfloat16(total, origin, out[0], start)
    _add(origin, total)
    largest = _round(total, out[1])
    _store(total, out[2], out[0], start)
    return largest


@compiled  # type: ignore[untyped-decorator]
def combine(
    sources: Any, base: Any, rules: Any, factors: Any, weights: Any, elect: bool, scaling: Any, out: Any, span: Any
) -> Any:
    """`eager_kernels.combine` on the elements ``span[0]`` to ``span[1]``.

    Args:
        sources: int64 (terms, 2): address and dtype code.
        base: int64 (2,): the same for the base; address 0 is no base.
        rules: int64 (terms, 5): which entries are kept.
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
    largest = np.uint32(0)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        origin, total, chosen, shares = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
        next_end = min(start + 2 * STRIP, span[1])
        if has_base:
            _prefetch(base[0], base[1], start + STRIP, next_end)
            for term in range(terms):
                _prefetch(sources[term, 0], sources[term, 1], start + STRIP, next_end)
            _load(base[0], base[1], start, origin)
        else:
            origin[:] = np.float32(0)
        total[:] = np.float32(0)
        for term in range(terms):
            if not (has_base or elect or rules[term, 0] != ALL):
                _add_scaled_source(sources[term, 0], sources[term, 1], start, factors[term], total)
                continue
            value = values[term if elect else 0, :size]
            address, kind, rule = sources[term, 0], sources[term, 1], rules[term]
            if rule[0] == ALL or (rule[0] == BAND and _is_plain(rule, start, start + size)):
                least, width = _bounds(rule, start)
                _add_band(address, kind, start, origin, least, width, factors[term], value, total)
                continue
            _task_vector(address, kind, start, origin, True, value)
            _keep(value, start, rule)
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


@compiled  # type: ignore[untyped-decorator]
def block_sums(source: Any, base: Any, rule: Any, sums: Any, span: Any) -> None:
    """`eager_kernels.block_sums` of the blocks in a span that starts with a block, into ``sums``: float64."""
    has_base = base[0] != 0
    scratch = np.empty((2, BLOCK), np.float32)
    for start in range(span[0], span[1], BLOCK):
        size = min(BLOCK, span[1] - start)
        origin, delta = scratch[0, :size], scratch[1, :size]
        if has_base:
            _load(base[0], base[1], start, origin)
        _task_vector(source[0], source[1], start, origin, has_base, delta)
        _keep(delta, start, rule)
        scratch[1, size:] = np.float32(0)
        for i in range(size):
            delta[i] = abs(delta[i])
        half = BLOCK // 2
        while half > 0:
            _add(scratch[1, half : 2 * half], scratch[1, :half])
            half //= 2
        sums[start // BLOCK] = np.float64(scratch[1, 0])


@compiled  # type: ignore[untyped-decorator]
def count_magnitudes(source: Any, base: Any, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (65536,), how often the upper 16 of a magnitude's 31 bits have each value."""
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        delta = _difference(source, base, start, size, scratch)
        for i in range(size):
            counts[(_as_bits(delta[i]) & np.uint32(0x7FFFFFFF)) >> np.uint32(15)] += np.uint32(1)


@compiled  # type: ignore[untyped-decorator]
def count_low_bits(source: Any, base: Any, number: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, uint32 (32768,), the lower 15 bits of the magnitudes whose upper 16 are ``number``."""
    scratch = np.empty((2, STRIP), np.float32)
    least, width = np.uint32(number << 15), np.uint32(1 << 15)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        delta = _difference(source, base, start, size, scratch)
        for begin in range(0, size, 64):
            part = delta[begin : min(begin + 64, size)]
            # A bin is rare, and counting is vectorised where what follows is not.
            if _count_between(part, least, width) == np.uint32(0):
                continue
            for i in range(part.size):
                word = np.uint32(np.uint32(_as_bits(part[i]) & np.uint32(0x7FFFFFFF)) - least)
                if word < width:
                    counts[word] += np.uint32(1)


@compiled  # type: ignore[untyped-decorator]
def count_equal(source: Any, base: Any, bits: int, part: int, counts: Any, span: Any) -> None:
    """Add to ``counts``, one for each ``part`` elements, how many magnitudes are ``bits``; parts start with a strip."""
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        size = min(STRIP, span[1] - start)
        delta = _difference(source, base, start, size, scratch)
        counts[start // part] += _count_between(delta, np.uint32(bits), np.uint32(1))


@compiled  # type: ignore[untyped-decorator]
def find_equal(source: Any, base: Any, bits: int, number: int, span: Any) -> int:
    """Position of the ``number``-th magnitude (from 1) of a span that is ``bits``; -1 when there are fewer."""
    scratch = np.empty((2, STRIP), np.float32)
    for start in range(span[0], span[1], STRIP):
        delta = _difference(source, base, start, min(STRIP, span[1] - start), scratch)
        for i in range(delta.size):
            if (_as_bits(delta[i]) & np.uint32(0x7FFFFFFF)) == np.uint32(bits):
                number -= 1
                if number == 0:
                    return start + i
    return -1


@compiled  # type: ignore[untyped-decorator]
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
        delta = _difference(source, base, start, min(STRIP, span[1] - start), scratch)
        for i in range(delta.size):
            word = _as_bits(delta[i]) & np.uint32(0x7FFFFFFF)
            slot = slots[word >> np.uint32(15)]
            if slot >= 0:
                counts[slot, word & np.uint32(0x7FFF)] += np.uint32(1)


@compiled  # type: ignore[untyped-decorator]
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
        delta = _difference(source, base, start, min(STRIP, span[1] - start), scratch)
        row = counts[start // part]
        for i in range(delta.size):
            word = _as_bits(delta[i]) & np.uint32(0x7FFFFFFF)
            slot = slots[word >> np.uint32(15)]
            if slot >= 0:
                place = places[slot, word & np.uint32(0x7FFF)]
                if place >= 0:
                    row[place] += np.uint32(1)


@inlined  # type: ignore[untyped-decorator]
def _difference(source: Any, base: Any, start: int, size: int, scratch: Any) -> Any:
    """The task vector's elements from ``start`` on."""
    has_base = base[0] != 0
    origin, delta = scratch[0, :size], scratch[1, :size]
    _prefetch(source[0], source[1], start + STRIP, start + 2 * STRIP)
    if has_base:
        _prefetch(base[0], base[1], start + STRIP, start + 2 * STRIP)
        _load(base[0], base[1], start, origin)
    _task_vector(source[0], source[1], start, origin, has_base, delta)
    return delta


@inlined  # type: ignore[untyped-decorator]
def _count_between(values: Any, least: Any, width: Any) -> Any:
    count = np.uint32(0)
    for i in range(values.size):
        above = np.uint32(np.uint32(_as_bits(values[i]) & np.uint32(0x7FFFFFFF)) - least)
        count = np.uint32(count + (np.uint32(1) if above < width else np.uint32(0)))
    return count


@compiled  # type: ignore[untyped-decorator]
def rank_mask(source: Any, base: Any, key: Any, limits: Any, mask: Any, rows: Any) -> None:
    """`eager_kernels.rank_mask` of the rows ``rows[0]`` to ``rows[1]``, into ``mask``: uint8.

    Args:
        source, base: int64 (2,): address and dtype code.
        key: int64 (2,): the halves of a random key.
        limits: uint32 (length,): what a draw of 24 bits must be under, by rank.
        mask: uint8, flat, of the whole tensor.
        rows: int64 (2,).
    """
    length = limits.size
    values = np.empty(length, np.float32)
    origin = np.empty(length, np.float32)
    words = np.empty((2, length), np.uint32)
    orders = np.empty((2, length), np.uint32)
    counts = np.empty((3, 2048), np.int64)
    for row in range(rows[0], rows[1]):
        start = row * length
        if base[0] != 0:
            _load(base[0], base[1], start, origin)
        _task_vector(source[0], source[1], start, origin, base[0] != 0, values)
        counts[:] = 0
        for i in range(length):
            word = np.uint32(_as_bits(values[i]) & np.uint32(0x7FFFFFFF))
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
        _draw_row(np.uint32(start), np.uint32(key[0]), np.uint32(key[1]), words[0])
        for rank in range(length):
            i = orders[1, rank]
            mask[start + i] = np.uint8(1) if words[0, i] < limits[rank] else np.uint8(0)


@inlined  # type: ignore[untyped-decorator]
def _draw_row(start: Any, low: Any, high: Any, draws: Any) -> None:
    for i in range(draws.size):
        word = np.uint32(_mix(np.uint32(np.uint32(np.uint32(i) + start) ^ low)) + high)
        draws[i] = np.uint32(_mix(word) >> np.uint32(8))
