"""What moving single terms of an elected sum does to a loss, on a GPU, in Triton: `eager.contract_elected`, to the bit.

A program takes a move and a block, and reads all sources for it; those of a block run side by side, so that the sources
come from the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merge_core.kernels import constants
from merge_core.kernels.selection import COLUMNS
from merge_core.kernels.triton_contraction import delta, halved
from merge_core.kernels.triton_passes import load

_COLUMNS = tl.constexpr(COLUMNS)
_NO_WEIGHT = tl.constexpr(constants.NO_WEIGHT)


@triton.jit
def _elected(above, below, for_above, for_below):
    plus = above + below >= 0
    share = tl.where(plus, for_above, for_below)
    return tl.div_rn(tl.where(plus, above, below), tl.where(tl.abs(share) >= _NO_WEIGHT, share, 1.0))


@triton.jit
def contract_elected(
    table,
    numbers,
    moved_terms,
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
    STEPS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """`eager.contract_elected` of a block and a move, into ``products``; the first row is the sum itself.

    Args:
        table: int64 (terms + moves, 9): as that of `triton_passes.combine`; of a move the source of its term, and the
            rule that it gets.
        numbers: address of float32 (2·(terms + moves),): factors, then weights.
        moved_terms: int32 (moves,): which term moves.
        gradient, gradient_kind, base, base_kind: address and dtype code.
        products: float64 (1 + moves, blocks).
        count: of the elements.
        rows: 1 + moves.
        blocks: of ``STEPS`` times ``SIZE`` elements.
        TERMS: of the sum.
        RULE: the kind of all rules, or ``MIXED``.
        ALIGNED: whether all addresses are multiples of 16.
    """
    factors = numbers.to(tl.pointer_type(tl.float32))
    weights = factors + TERMS + rows - 1
    row, block = tl.program_id(0) % rows, tl.program_id(0) // rows
    moves = row > 0
    moved_term = tl.load(moved_terms + row - 1, mask=moves, other=-1)
    lanes = tl.zeros((SIZE,), tl.float64)
    for step in range(STEPS):
        start = (block.to(tl.int64) * STEPS + step) * SIZE
        at = start + tl.arange(0, SIZE)
        inside = at < count
        slope = load(gradient, gradient_kind, at, inside, ALIGNED)
        origin = tl.zeros((SIZE,), tl.float32)
        if HAS_BASE:
            origin = load(base, base_kind, at, inside, ALIGNED)
        above, below = tl.zeros((SIZE,), tl.float32), tl.zeros((SIZE,), tl.float32)
        for_above, for_below = tl.zeros((SIZE,), tl.float32), tl.zeros((SIZE,), tl.float32)
        before = tl.zeros((SIZE,), tl.float32)
        for term in range(TERMS):
            value = delta(table, term, origin, start, at, inside, RULE, ALIGNED, SIZE) * tl.load(factors + term)
            weight = tl.load(weights + term)
            above = above + tl.where(value > 0, value, 0.0)
            below = below + tl.where(value > 0, 0.0, value)
            for_above = for_above + tl.where(value > 0, weight, 0.0)
            for_below = for_below + tl.where(value < 0, weight, 0.0)
            before = tl.where(term == moved_term, value, before)
        change = _elected(above, below, for_above, for_below)
        if moves:
            place = TERMS + row - 1
            after = delta(table, place, origin, start, at, inside, RULE, ALIGNED, SIZE) * tl.load(factors + place)
            left, joins = tl.load(weights + moved_term), tl.load(weights + place)
            change = (
                _elected(
                    above - tl.where(before > 0, before, 0.0) + tl.where(after > 0, after, 0.0),
                    below - tl.where(before > 0, 0.0, before) + tl.where(after > 0, 0.0, after),
                    for_above - tl.where(before > 0, left, 0.0) + tl.where(after > 0, joins, 0.0),
                    for_below - tl.where(before < 0, left, 0.0) + tl.where(after < 0, joins, 0.0),
                )
                - change
            )
        lanes = lanes + slope.to(tl.float64) * change.to(tl.float64)
    tl.store(products + row * blocks + block, tl.sum(halved(lanes, SIZE)))
