"""Inner products of a gradient with the terms of a merge on a GPU, in Triton: `eager.contract`, to the bit.

A program takes a row and a block, whose lanes are added in order and folded in halves, as they are there. With an
election every row of the result computes the sum of all terms anew; what it is computed from is in the cache by then.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merge_core.kernels import constants
from merge_core.kernels.selection import COLUMNS
from merge_core.kernels.triton_passes import kept, load

_NO_WEIGHT = tl.constexpr(constants.NO_WEIGHT)
_COLUMNS = tl.constexpr(COLUMNS)


@triton.jit
def _delta(table, term, origin, start, at, inside, RULE: tl.constexpr, ALIGNED: tl.constexpr, SIZE: tl.constexpr):
    """What is kept of a source's task vector."""
    row = table + term * _COLUMNS
    value = load(tl.load(row), tl.load(row + 1), at, inside, ALIGNED) - origin
    return kept(value, start, at, inside, row + 2, SIZE, RULE)


@triton.jit
def _agrees(term, total):
    return tl.where(total >= 0, term, -term) > 0


@triton.jit
def _elected(
    table,
    numbers,
    origin,
    start,
    at,
    inside,
    TERMS: tl.constexpr,
    RULE: tl.constexpr,
    ALIGNED: tl.constexpr,
    NORMALIZE: tl.constexpr,
    SIZE: tl.constexpr,
):
    """The sum of all terms, the elected ones alone, and what these are divided by, 0 for nothing."""
    total = tl.zeros((SIZE,), tl.float32)
    for term in tl.static_range(TERMS):
        delta = _delta(table, term, origin, start, at, inside, RULE, ALIGNED, SIZE)
        total = total + delta * tl.load(numbers + term)
    elected = tl.zeros((SIZE,), tl.float32)
    share = tl.zeros((SIZE,), tl.float32)
    for term in tl.static_range(TERMS):
        value = _delta(table, term, origin, start, at, inside, RULE, ALIGNED, SIZE) * tl.load(numbers + term)
        agrees = _agrees(value, total)
        elected = elected + tl.where(agrees, value, 0.0)
        if NORMALIZE:
            share = share + tl.where(agrees, tl.load(numbers + 2 * TERMS + term), 0.0)
    return total, elected, share


@triton.jit
def _halved(lanes, SIZE: tl.constexpr):
    """The sum of lanes whose number is a power of two, folded in halves."""
    if SIZE > 1:
        lanes = _halved(tl.sum(tl.reshape(lanes, (2, SIZE // 2)), axis=0), SIZE // 2)
    return lanes


@triton.jit
def contract(
    table,
    numbers,
    gradient,
    gradient_kind,
    base,
    base_kind,
    products,
    count,
    rows,
    blocks,
    TERMS: tl.constexpr,
    RULE: tl.constexpr,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    ELECT: tl.constexpr,
    NORMALIZE: tl.constexpr,
    STEPS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`eager.contract` of a block and a row, into ``products``; the rows of a block run side by side, and read it once.

    Args:
        table: int64 (terms, 9): as that of `triton_passes.combine`.
        numbers: address of float32 (3, terms): factors, scales, and what elected terms are divided by the sum of.
        gradient, gradient_kind, base, base_kind: address and dtype code.
        products: float64 (terms, and one with ``ELECT``; blocks).
        count: of the elements.
        rows: of the products.
        blocks: of ``STEPS`` times ``SIZE`` elements.
        TERMS: of the sum.
        RULE: the kind of all rules, or ``MIXED``.
        ALIGNED: whether all addresses are multiples of 16.
    """
    numbers = numbers.to(tl.pointer_type(tl.float32))
    row, block = tl.program_id(0) % rows, tl.program_id(0) // rows
    lanes = tl.zeros((SIZE,), tl.float64)
    for step in range(STEPS):
        start = (block.to(tl.int64) * STEPS + step) * SIZE
        at = start + tl.arange(0, SIZE)
        inside = at < count
        slope = load(gradient, gradient_kind, at, inside, ALIGNED)
        origin = tl.zeros((SIZE,), tl.float32)
        if HAS_BASE:
            origin = load(base, base_kind, at, inside, ALIGNED)
        if ELECT:
            total, mean, share = _elected(
                table, numbers, origin, start, at, inside, TERMS, RULE, ALIGNED, NORMALIZE, SIZE
            )
            divides = tl.abs(share) >= _NO_WEIGHT
            share = tl.where(divides, share, 1.0)
            mean = tl.div_rn(mean, share)
            change = mean
            if row < TERMS:
                slope = tl.div_rn(slope, share)
                delta = _delta(table, row, origin, start, at, inside, RULE, ALIGNED, SIZE)
                agrees = _agrees(delta * tl.load(numbers + row), total)
                change = delta * tl.load(numbers + TERMS + row) - tl.where(divides, mean, 0.0)
                change = tl.where(agrees, change, 0.0)
        else:
            change = _delta(table, row, origin, start, at, inside, RULE, ALIGNED, SIZE) * tl.load(numbers + TERMS + row)
        lanes = lanes + slope.to(tl.float64) * change.to(tl.float64)
    tl.store(products + row * blocks + block, tl.sum(_halved(lanes, SIZE)))
