"""Inner products of a gradient with what is kept of task vectors, compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from merge_core.kernels.compiled_elements import compiled, inlined, load, prefetch, task_vector
from merge_core.kernels.compiled_selection import select
from merge_core.kernels.constants import BLOCK, LANES


@inlined
def _add_products(slope: Any, values: Any, scale: Any, sums: Any) -> None:
    for i in range(values.size):
        sums[i] = sums[i] + np.float64(slope[i]) * np.float64(np.float32(values[i] * scale))


@inlined
def fold(sums: Any) -> Any:
    """The sum of `LANES` numbers, folded in halves."""
    half = LANES // 2
    while half > 0:
        for i in range(half):
            sums[i] = sums[i] + sums[half + i]
        half //= 2
    return sums[0]


@compiled
def contract(gradient: Any, sources: Any, base: Any, rules: Any, scales: Any, sums: Any, span: Any) -> None:
    """`eager.contract` of the blocks in a span that starts with a block, into ``sums``.

    Args:
        gradient: int64 (2,): address and dtype code.
        sources: int64 (terms, 2): the same.
        base: int64 (2,): the same for the base; address 0 is no base.
        rules: int64 (terms, 7): which entries are kept.
        scales: float32 (terms,).
        sums: float64 (terms, blocks).
        span: int64 (2,).
    """
    has_base = base[0] != 0
    terms = scales.size
    scratch = np.empty((3, LANES), np.float32)
    lanes = np.empty((terms, LANES), np.float64)
    words = np.empty(LANES // 2, np.uint32)
    for block in range(span[0], span[1], BLOCK):
        lanes[:] = np.float64(0)
        for start in range(block, min(block + BLOCK, span[1]), LANES):
            size = min(LANES, span[1] - start)
            origin, slope, value = scratch[0, :size], scratch[1, :size], scratch[2, :size]
            next_end = min(start + 2 * LANES, span[1])
            prefetch(gradient[0], gradient[1], start + LANES, next_end)
            load(gradient[0], gradient[1], start, slope)
            if has_base:
                prefetch(base[0], base[1], start + LANES, next_end)
                load(base[0], base[1], start, origin)
            for term in range(terms):
                prefetch(sources[term, 0], sources[term, 1], start + LANES, next_end)
                task_vector(sources[term, 0], sources[term, 1], start, origin, has_base, value)
                select(value, start, rules[term], words)
                _add_products(slope, value, scales[term], lanes[term])
        for row in range(sums.shape[0]):
            sums[row, block // BLOCK] = fold(lanes[row])
