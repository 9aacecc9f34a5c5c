"""The pass over the elements of a merge on a GPU, in Triton: `eager.combine`, to the bit.

One pass over the sources, in the dtype they are stored in, for any number of them: a table says what is where and which
entries are kept, as the compiled kernels have it. Nothing is contracted to fused multiply-adds, divisions are rounded
correctly, 16-bit numbers are widened and rounded as integers, and sums have a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merge_core.kernels import constants
from merge_core.kernels.selection import COLUMNS

_BFLOAT16 = tl.constexpr(constants.BFLOAT16)
_FLOAT32 = tl.constexpr(constants.FLOAT32)
_RANGE = tl.constexpr(constants.SELECT_RANGE)
_RANDOM = tl.constexpr(constants.SELECT_RANDOM)
_RANKED = tl.constexpr(constants.SELECT_RANKED)
_MIXED = tl.constexpr(constants.MIXED)
_NO_WEIGHT = tl.constexpr(constants.NO_WEIGHT)
_SIGN = tl.constexpr(-(1 << 31))
_COLUMNS = tl.constexpr(COLUMNS)

STRIP = 2048
"""Elements of a program: as many as let reads overlap most, measured on a card."""

ELECTING_STRIP = 1024
"""Of one that elects signs, and keeps every term of its elements in registers."""


@triton.jit
def _pointer(address, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    pointer = address.to(tl.pointer_type(TYPE))
    if ALIGNED:  # so that a thread reads 16 bytes at once
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def load(address, kind, at, inside, ALIGNED: tl.constexpr):
    """Elements as float32, 0 outside. ``ALIGNED``: the address is a multiple of 16."""
    if kind == _FLOAT32:
        value = tl.load(_pointer(address, tl.float32, ALIGNED) + at, mask=inside, other=0.0)
    elif kind == _BFLOAT16:
        bits = tl.load(_pointer(address, tl.uint16, ALIGNED) + at, mask=inside, other=0)
        value = (bits.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        value = tl.load(_pointer(address, tl.float16, ALIGNED) + at, mask=inside, other=0.0).to(tl.float32)
    return value


@triton.jit
def magnitude_bits(value):
    """Of float32, as int32."""
    return value.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _mix(word):
    """`lowbias32`, see `random_numbers.draws`."""
    word = word ^ (word >> 16)
    word = word * 0x21F0AAAD
    word = word ^ (word >> 15)
    word = word * 0xD35A2D97
    return word ^ (word >> 15)


@triton.jit
def draws(start, low, high, SIZE: tl.constexpr):
    """`SIZE` draws from an even ``start`` on, two of each word."""
    counter = (start // 2 + tl.arange(0, SIZE // 2)).to(tl.uint32)
    word = _mix(_mix(counter ^ low.to(tl.uint32)) + high.to(tl.uint32))
    return tl.interleave(word & 0xFFFF, word >> 16)


@triton.jit
def rise(at, inside, rule):
    """By how much the limits of ranked entries are above the lowest."""
    ranks = tl.load(tl.load(rule + 5).to(tl.pointer_type(tl.int32)) + at, mask=inside, other=0).to(tl.uint32)
    return (tl.load(rule + 4).to(tl.uint32) * ranks) >> 16


@triton.jit
def _limit(place, start, SIZE: tl.constexpr):
    """An end of a range of magnitudes for each element: one more from the position on that follows it in the table."""
    end = tl.load(place + 1) - start  # in 32 bits, which is half of the work
    end = tl.minimum(tl.maximum(end, 0), SIZE).to(tl.int32)
    return tl.load(place).to(tl.uint32) + (tl.arange(0, SIZE) >= end).to(tl.uint32)


@triton.jit
def code_at(place, COMMON: tl.constexpr):
    """A code of the table, or the one that every row has: then the compiler knows it, and nothing waits for a read."""
    if COMMON == _MIXED:
        return tl.load(place)
    else:  # noqa: RET505 - only of an if with its else does Triton drop a branch
        return COMMON


@triton.jit
def kept(value, start, at, inside, rule, SIZE: tl.constexpr, RULE: tl.constexpr = _MIXED, BOUNDED: tl.constexpr = True):
    """Zero what a rule drops; see `selection` for what the columns mean.

    Args:
        RULE: the rule's kind, if it is known.
        BOUNDED: whether a range may end below the largest magnitudes.
    """
    kind = code_at(rule, RULE)
    if kind == _RANGE:
        bits = magnitude_bits(value).to(tl.uint32)
        inside_range = bits >= _limit(rule + 1, start, SIZE)
        if BOUNDED:
            inside_range = inside_range & (bits < _limit(rule + 3, start, SIZE))
        value = tl.where(inside_range, value, 0.0)
    elif kind == _RANDOM:
        limit = tl.load(rule + 3).to(tl.uint32)
        value = tl.where(draws(start, tl.load(rule + 1), tl.load(rule + 2), SIZE) < limit, value, 0.0)
    elif kind == _RANKED:
        limit = tl.load(rule + 3).to(tl.uint32) + rise(at, inside, rule)
        value = tl.where(draws(start, tl.load(rule + 1), tl.load(rule + 2), SIZE) < limit, value, 0.0)
    return value


@triton.jit
def _turned(value, turn):
    """With the sign bit turned where ``turn`` has it."""
    return (value.to(tl.int32, bitcast=True) ^ turn).to(tl.float32, bitcast=True)


@triton.jit
def _round_to_bfloat16(value):
    """The upper halves of float32, to nearest, ties to even; a NaN stays one."""
    bits = value.to(tl.uint32, bitcast=True)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (tl.where((bits & 0x7FFFFFFF) <= 0x7F800000, rounded, bits) >> 16).to(tl.uint16)


@triton.jit
def combine(
    table,
    numbers,
    base,
    base_kind,
    out,
    largest,
    count,
    TERMS: tl.constexpr,
    STORED: tl.constexpr,
    RULE: tl.constexpr,
    BOUNDED: tl.constexpr,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    ELECT: tl.constexpr,
    NORMALIZE: tl.constexpr,
    OUT: tl.constexpr,
    WIDE: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`eager.combine`, rounded and stored.

    Args:
        table: int64 (terms, 9): address and dtype code of each source, and its rule.
        numbers: address of float32 (2·terms + 1,): factors, what elected terms are divided by the sum of, and the
            scaling that is used with ``ELECT``.
        base, base_kind: address and dtype code; not read without ``HAS_BASE``.
        out: of the dtype ``OUT`` (a code), or float32 with ``WIDE``, which then holds rounded values.
        largest: address of an int32, raised to the bits of the largest magnitude that is written, as float32.
        count: of the elements.
        TERMS: of the sum. Written out one after the other, so that all are read at once.
        STORED: the dtype code of all sources and of the base, or ``MIXED``.
        RULE: the kind of all rules, or ``MIXED``.
        BOUNDED: as for `kept`.
        ALIGNED: whether all addresses are multiples of 16.
    """
    start = tl.program_id(0).to(tl.int64) * SIZE
    at = start + tl.arange(0, SIZE)
    inside = at < count
    factors = numbers.to(tl.pointer_type(tl.float32))
    origin = tl.zeros((SIZE,), tl.float32)
    if HAS_BASE:
        if STORED == _MIXED:
            origin = load(base, base_kind, at, inside, ALIGNED)
        else:
            origin = load(base, STORED, at, inside, ALIGNED)
    total = tl.zeros((SIZE,), tl.float32)
    values = ()
    for term in tl.static_range(TERMS):
        row = table + term * _COLUMNS
        value = load(tl.load(row), code_at(row + 1, STORED), at, inside, ALIGNED)
        if HAS_BASE:
            value = value - origin
        value = kept(value, start, at, inside, row + 2, SIZE, RULE, BOUNDED) * tl.load(factors + term)
        total = total + value
        if ELECT:
            values = values + (value,)  # type: ignore[assignment]  # noqa: RUF005 - Triton reads no star
    if ELECT:
        # Turned so that the elected sign is plus: a sum of what is turned is the turned sum, to the bit. A NaN votes
        # for no sign; the difference brings it back, so that it is found.
        turn = tl.where(total >= 0, 0, _SIGN)
        chosen = tl.zeros((SIZE,), tl.float32)
        share = tl.zeros((SIZE,), tl.float32)
        for term in tl.static_range(TERMS):
            turned = _turned(values[term], turn)
            chosen = chosen + tl.maximum(turned, 0.0)
            if NORMALIZE:
                share = share + tl.where(turned > 0, tl.load(factors + TERMS + term), 0.0)
        chosen = _turned(chosen, turn) + (total - total)
        if NORMALIZE:
            chosen = tl.div_rn(chosen, tl.where(tl.abs(share) >= _NO_WEIGHT, share, 1.0))
        total = chosen * tl.load(factors + 2 * TERMS)
    if HAS_BASE:
        total = total + origin
    if OUT == _BFLOAT16:
        halves = _round_to_bfloat16(total)
        rounded = (halves.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
        if WIDE:
            tl.store(_pointer(out, tl.float32, ALIGNED) + at, rounded, mask=inside)
        else:
            tl.store(_pointer(out, tl.uint16, ALIGNED) + at, halves, mask=inside)
    elif OUT == _FLOAT32:
        rounded = total
        tl.store(_pointer(out, tl.float32, ALIGNED) + at, rounded, mask=inside)
    else:
        narrow = total.to(tl.float16)
        rounded = narrow.to(tl.float32)
        if WIDE:
            tl.store(_pointer(out, tl.float32, ALIGNED) + at, rounded, mask=inside)
        else:
            tl.store(_pointer(out, tl.float16, ALIGNED) + at, narrow, mask=inside)
    tl.atomic_max(largest.to(tl.pointer_type(tl.int32)), tl.max(tl.where(inside, magnitude_bits(rounded), 0)))
