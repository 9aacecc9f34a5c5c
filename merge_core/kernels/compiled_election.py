"""What moving single terms of an elected sum does to a loss, compiled by numba: all moves in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from merge_core.kernels.compiled_contraction import fold
from merge_core.kernels.compiled_elements import compiled, inlined, load, prefetch, task_vector
from merge_core.kernels.compiled_selection import select
from merge_core.kernels.constants import BLOCK, LANES, NO_WEIGHT


@inlined
def _vote(values: Any, factor: Any, weight: Any, above: Any, below: Any, for_above: Any, for_below: Any) -> None:
    """Add terms to the sums of their signs."""
    for i in range(values.size):
        value = np.float32(values[i] * factor)
        plus = value > np.float32(0)
        above[i] = above[i] + (value if plus else np.float32(0))
        below[i] = below[i] + (np.float32(0) if plus else value)
        for_above[i] = for_above[i] + (weight if plus else np.float32(0))
        for_below[i] = for_below[i] + (weight if value < np.float32(0) else np.float32(0))


@inlined
def _elected(above: Any, below: Any, for_above: Any, for_below: Any) -> Any:
    plus = np.float32(above + below) >= np.float32(0)
    share = for_above if plus else for_below
    share = share if abs(share) >= np.float32(NO_WEIGHT) else np.float32(1)
    return np.float32((above if plus else below) / share)


@inlined
def _elect(above: Any, below: Any, for_above: Any, for_below: Any, slope: Any, result: Any, sums: Any) -> None:
    for i in range(result.size):
        result[i] = _elected(above[i], below[i], for_above[i], for_below[i])
        sums[i] = sums[i] + np.float64(slope[i]) * np.float64(result[i])


@inlined
def _move(
    values: Any,
    factor: Any,
    weight: Any,
    moved: Any,
    moved_factor: Any,
    moved_weight: Any,
    above: Any,
    below: Any,
    for_above: Any,
    for_below: Any,
    slope: Any,
    result: Any,
    sums: Any,
) -> None:
    """Take terms out of the sums of their signs, let what they become in, and elect again."""
    zero = np.float32(0)
    for i in range(values.size):
        before, after = np.float32(values[i] * factor), np.float32(moved[i] * moved_factor)
        was, plus = before > zero, after > zero
        there = _elected(
            np.float32(np.float32(above[i] - (before if was else zero)) + (after if plus else zero)),
            np.float32(np.float32(below[i] - (zero if was else before)) + (zero if plus else after)),
            np.float32(np.float32(for_above[i] - (weight if was else zero)) + (moved_weight if plus else zero)),
            np.float32(
                np.float32(for_below[i] - (weight if before < zero else zero))
                + (moved_weight if after < zero else zero)
            ),
        )
        sums[i] = sums[i] + np.float64(slope[i]) * np.float64(np.float32(there - result[i]))


@compiled
def contract_elected(
    gradient: Any,
    sources: Any,
    base: Any,
    rules: Any,
    numbers: Any,
    terms: Any,
    reselected: Any,
    moved_rules: Any,
    moved_numbers: Any,
    sums: Any,
    span: Any,
) -> None:
    """`eager.contract_elected` of the blocks in a span that starts with a block, into ``sums``.

    Args:
        gradient, sources, base, rules: as in `compiled_contraction.contract`.
        numbers: float32 (terms, 2): factor and weight of each.
        terms: int64 (moves,): which one moves.
        reselected: bool (moves,): whether its rule does.
        moved_rules: int64 (moves, 7): what is kept then.
        moved_numbers: float32 (moves, 2).
        sums: float64 (1 + moves, blocks).
        span: int64 (2,).
    """
    has_base = base[0] != 0
    count = numbers.shape[0]
    scratch = np.empty((8, LANES), np.float32)
    kept = np.empty((count, LANES), np.float32)
    lanes = np.empty((sums.shape[0], LANES), np.float64)
    words = np.empty(LANES // 2, np.uint32)
    for block in range(span[0], span[1], BLOCK):
        lanes[:] = np.float64(0)
        for start in range(block, min(block + BLOCK, span[1]), LANES):
            size = min(LANES, span[1] - start)
            origin, slope, result, other = scratch[0, :size], scratch[1, :size], scratch[2, :size], scratch[3, :size]
            above, below, for_above, for_below = (
                scratch[4, :size],
                scratch[5, :size],
                scratch[6, :size],
                scratch[7, :size],
            )
            scratch[4:, :size] = np.float32(0)
            next_end = min(start + 2 * LANES, span[1])
            prefetch(gradient[0], gradient[1], start + LANES, next_end)
            load(gradient[0], gradient[1], start, slope)
            if has_base:
                prefetch(base[0], base[1], start + LANES, next_end)
                load(base[0], base[1], start, origin)
            for term in range(count):
                values = kept[term, :size]
                prefetch(sources[term, 0], sources[term, 1], start + LANES, next_end)
                task_vector(sources[term, 0], sources[term, 1], start, origin, has_base, values)
                select(values, start, rules[term], words)
                _vote(values, numbers[term, 0], numbers[term, 1], above, below, for_above, for_below)
            _elect(above, below, for_above, for_below, slope, result, lanes[0])
            for move in range(terms.size):
                term = terms[move]
                values, moved = kept[term, :size], kept[term, :size]
                if reselected[move]:
                    moved = other
                    task_vector(sources[term, 0], sources[term, 1], start, origin, has_base, moved)
                    select(moved, start, moved_rules[move], words)
                _move(
                    values,
                    numbers[term, 0],
                    numbers[term, 1],
                    moved,
                    moved_numbers[move, 0],
                    moved_numbers[move, 1],
                    above,
                    below,
                    for_above,
                    for_below,
                    slope,
                    result,
                    lanes[1 + move],
                )
        for row in range(sums.shape[0]):
            sums[row, block // BLOCK] = fold(lanes[row])
