"""Inner products of a gradient with the terms of a merge, compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from merge_core.kernels.compiled_elements import compiled, inlined, load, prefetch, task_vector
from merge_core.kernels.compiled_selection import select
from merge_core.kernels.constants import BLOCK, LANES, NO_WEIGHT


@inlined
def _add_products(slope: Any, values: Any, scale: Any, sums: Any) -> None:
    for i in range(values.size):
        sums[i] = sums[i] + np.float64(slope[i]) * np.float64(np.float32(values[i] * scale))


@inlined
def _add_agreeing_products(
    slope: Any, values: Any, factor: Any, scale: Any, total: Any, common: Any, sums: Any
) -> None:
    for i in range(values.size):
        change = np.float32(np.float32(values[i] * scale) - common[i])
        agrees = _agrees(np.float32(values[i] * factor), total[i])
        sums[i] = sums[i] + np.float64(slope[i]) * np.float64(change if agrees else np.float32(0))


@inlined
def _agrees(term: Any, total: Any) -> Any:
    along = term if total >= np.float32(0) else -term
    return along > np.float32(0)


@inlined
def _add_scaled(values: Any, factor: Any, total: Any) -> None:
    for i in range(values.size):
        total[i] = total[i] + np.float32(values[i] * factor)


@inlined
def _add_agreeing(values: Any, factor: Any, weight: Any, total: Any, mean: Any, share: Any) -> None:
    for i in range(values.size):
        term = np.float32(values[i] * factor)
        agrees = _agrees(term, total[i])
        mean[i] = mean[i] + (term if agrees else np.float32(0))
        share[i] = share[i] + (weight if agrees else np.float32(0))


@inlined
def _divide(mean: Any, share: Any, slope: Any, common: Any) -> None:
    for i in range(mean.size):
        divides = abs(share[i]) >= np.float32(NO_WEIGHT)
        divisor = share[i] if divides else np.float32(1)
        mean[i] = np.float32(mean[i] / divisor)
        slope[i] = np.float32(slope[i] / divisor)
        common[i] = mean[i] if divides else np.float32(0)


@inlined
def _fold(sums: Any) -> Any:
    half = LANES // 2
    while half > 0:
        for i in range(half):
            sums[i] = sums[i] + sums[half + i]
        half //= 2
    return sums[0]


@compiled
def contract(
    gradient: Any,
    sources: Any,
    base: Any,
    rules: Any,
    factors: Any,
    scales: Any,
    weights: Any,
    elect: bool,
    sums: Any,
    span: Any,
) -> None:
    """`eager.contract` of the blocks in a span that starts with a block, into ``sums``.

    Args:
        gradient: int64 (2,): address and dtype code.
        sources: int64 (terms, 2): the same.
        base: int64 (2,): the same for the base; address 0 is no base.
        rules: int64 (terms, 7): which entries are kept.
        factors, scales: float32 (terms,).
        weights: float32 (terms,); empty when nothing is divided by them.
        elect: keep only the terms whose sign is that of the sum.
        sums: float64 (terms, and one with ``elect``; blocks).
        span: int64 (2,).
    """
    has_base = base[0] != 0
    terms = scales.size
    scratch = np.empty((7, LANES), np.float32)
    values = np.empty((terms, LANES), np.float32)
    lanes = np.empty((terms + 1, LANES), np.float64)
    words = np.empty(LANES // 2, np.uint32)
    for block in range(span[0], span[1], BLOCK):
        lanes[:] = np.float64(0)
        for start in range(block, min(block + BLOCK, span[1]), LANES):
            size = min(LANES, span[1] - start)
            origin, slope, total = scratch[0, :size], scratch[1, :size], scratch[2, :size]
            next_end = min(start + 2 * LANES, span[1])
            prefetch(gradient[0], gradient[1], start + LANES, next_end)
            load(gradient[0], gradient[1], start, slope)
            if has_base:
                prefetch(base[0], base[1], start + LANES, next_end)
                load(base[0], base[1], start, origin)
            for term in range(terms):
                value = values[term, :size]
                prefetch(sources[term, 0], sources[term, 1], start + LANES, next_end)
                task_vector(sources[term, 0], sources[term, 1], start, origin, has_base, value)
                select(value, start, rules[term], words)
                if not elect:
                    _add_products(slope, value, scales[term], lanes[term])
            if not elect:
                continue
            mean, share = scratch[3, :size], scratch[4, :size]
            common, divided = scratch[5, :size], scratch[6, :size]
            total[:] = np.float32(0)
            for term in range(terms):
                _add_scaled(values[term, :size], factors[term], total)
            mean[:] = np.float32(0)
            share[:] = np.float32(0)
            for term in range(terms):
                weight = weights[term] if weights.size > 0 else np.float32(0)
                _add_agreeing(values[term, :size], factors[term], weight, total, mean, share)
            for i in range(size):  # numba compiles an assignment of a slice for two seconds
                divided[i] = slope[i]
            _divide(mean, share, divided, common)
            for term in range(terms):
                _add_agreeing_products(
                    divided, values[term, :size], factors[term], scales[term], total, common, lanes[term]
                )
            _add_products(slope, mean, np.float32(1), lanes[terms])
        for row in range(sums.shape[0]):
            sums[row, block // BLOCK] = _fold(lanes[row])
