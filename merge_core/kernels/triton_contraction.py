"""Inner products of a gradient with task vectors on a GPU, in Triton: `eager.contract`, to the bit.

A program takes a term and a block, whose lanes are added in order and folded in halves, as they are there.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merge_core.kernels.selection import COLUMNS
from merge_core.kernels.triton_passes import kept, load

_COLUMNS = tl.constexpr(COLUMNS)


@triton.jit
def delta(table, term, origin, start, at, inside, RULE: tl.constexpr, ALIGNED: tl.constexpr, SIZE: tl.constexpr):
    """What is kept of a source's task vector."""
    row = table + term * _COLUMNS
    value = load(tl.load(row), tl.load(row + 1), at, inside, ALIGNED) - origin
    return kept(value, start, at, inside, row + 2, SIZE, RULE)


@triton.jit
def halved(lanes, SIZE: tl.constexpr):
    """The sum of lanes whose number is a power of two, folded in halves."""
    if SIZE > 1:
        lanes = halved(tl.sum(tl.reshape(lanes, (2, SIZE // 2)), axis=0), SIZE // 2)
    return lanes


@triton.jit
def contract(
    table,
    scales,
    gradient,
    gradient_kind,
    base,
    base_kind,
    products,
    count,
    terms,
    blocks,
    RULE: tl.constexpr,
    HAS_BASE: tl.constexpr,
    ALIGNED: tl.constexpr,
    STEPS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`eager.contract` of a block and a term, into ``products``; the terms of a block run side by side.

    Args:
        table: int64 (terms, 9): as that of `triton_passes.combine`.
        scales: address of float32 (terms,).
        gradient, gradient_kind, base, base_kind: address and dtype code.
        products: float64 (terms, blocks).
        count: of the elements.
        terms: of the products.
        blocks: of ``STEPS`` times ``SIZE`` elements.
        RULE: the kind of all rules, or ``MIXED``.
        ALIGNED: whether all addresses are multiples of 16.
    """
    scales = scales.to(tl.pointer_type(tl.float32))
    term, block = tl.program_id(0) % terms, tl.program_id(0) // terms
    lanes = tl.zeros((SIZE,), tl.float64)
    for step in range(STEPS):
        start = (block.to(tl.int64) * STEPS + step) * SIZE
        at = start + tl.arange(0, SIZE)
        inside = at < count
        slope = load(gradient, gradient_kind, at, inside, ALIGNED)
        origin = tl.zeros((SIZE,), tl.float32)
        if HAS_BASE:
            origin = load(base, base_kind, at, inside, ALIGNED)
        change = delta(table, term, origin, start, at, inside, RULE, ALIGNED, SIZE) * tl.load(scales + term)
        lanes = lanes + slope.to(tl.float64) * change.to(tl.float64)
    tl.store(products + term * blocks + block, tl.sum(halved(lanes, SIZE)))
