"""What the compiled kernels compute, in plain torch: the meaning of each, and the way on accelerators.

Every operation is rounded by itself, products are added in a second step, and sums have a fixed order, so that
both ways give the same bits on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merge_core.keep import MagnitudeRange, Mask, RandomSelection, Selection
from merge_core.kernel_constants import BLOCK, NO_WEIGHT, UNBOUNDED
from merge_core.random_numbers import uniform


def task_vector(source: Tensor, base: Tensor | None) -> Tensor:
    """``source − base`` in float32; the source itself without a base."""
    wide = source.to(torch.float32)
    return wide if base is None else wide - base.to(torch.float32)


def magnitude_bits(values: Tensor) -> Tensor:
    """The bits of float32 magnitudes as int32, which sort as the magnitudes do."""
    return values.view(torch.int32) & 0x7FFFFFFF


def keep_mask(values: Tensor, rule: MagnitudeRange | RandomSelection | Mask) -> Tensor:
    """Which entries a rule keeps: bool, flat."""
    if isinstance(rule, Mask):
        return rule.values != 0
    if isinstance(rule, RandomSelection):
        return uniform(rule.key, values.numel(), values.device) < rule.limit * 2.0**-24
    bits, position = magnitude_bits(values), torch.arange(values.numel(), device=values.device)
    mask = (bits > rule.low) | ((bits == rule.low) & (position < rule.low_end))
    if rule.high < UNBOUNDED:
        mask &= (bits < rule.high) | ((bits == rule.high) & (position >= rule.high_end))
    return mask


def kept(values: Tensor, rule: Selection) -> Tensor:
    """Zero what a rule drops."""
    return values if rule is None else torch.where(keep_mask(values, rule), values, 0.0)


def combine(
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    factors: Sequence[float],
    weights: Sequence[float],
    elect: bool,
    scaling: float,
) -> Tensor:
    """``Σ fᵢ δ̂ᵢ + b``; with ``elect``, of every position's terms only those with the sign of their sum.

    A sum of 0 elects plus. The elected terms are divided by the sum of their weights, if there are weights (by 1
    where it is 0), and multiplied by ``scaling``.

    Returns:
        float32, flat.
    """
    origin = None if base is None else base.to(torch.float32)
    like = sources[0] if origin is None else origin
    total = torch.zeros_like(like, dtype=torch.float32)
    parts = [torch.zeros_like(total) for _ in range(4)] if elect else []
    for index, (source, rule, factor) in enumerate(zip(sources, rules, factors, strict=True)):
        value = kept(task_vector(source, origin), rule) * factor
        total = total + value
        if elect:
            above, below, for_above, for_below = parts
            above += torch.where(value > 0, value, 0.0)
            below += torch.where(value < 0, value, 0.0)
            if weights:
                for_above += (value > 0).to(torch.float32) * weights[index]
                for_below += (value < 0).to(torch.float32) * weights[index]
    if elect:
        above, below, for_above, for_below = parts
        # A NaN votes for no sign; the difference brings it back, so that it is found.
        chosen = torch.where(total >= 0, above, below) + (total - total)
        if weights:
            share = torch.where(total >= 0, for_above, for_below)
            chosen = chosen / torch.where(share.abs() >= NO_WEIGHT, share, 1.0)
        total = chosen * scaling
    return total if origin is None else total + origin


def block_sums(source: Tensor, base: Tensor | None, rule: Selection) -> Tensor:
    """Sums of magnitudes of what a rule keeps, by blocks of `BLOCK` elements.

    A block is padded with zeros and folded in halves in float32, so that no machine reorders the sum.

    Returns:
        float64 tensor with one element per block.
    """
    magnitude = kept(task_vector(source, base), rule).abs()
    values = torch.nn.functional.pad(magnitude, (0, -magnitude.numel() % BLOCK)).view(-1, BLOCK)
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    return values.view(-1).to(torch.float64)


def fold(sums: Tensor) -> float:
    """The sum of a flat float64 tensor, folded in halves."""
    while sums.numel() > 1:
        padded = torch.nn.functional.pad(sums, (0, sums.numel() % 2))
        half = padded.numel() // 2
        sums = padded[:half] + padded[half:]
    return float(sums[0])


def rank_mask(source: Tensor, base: Tensor | None, key: int, limits: Tensor) -> Tensor:
    """Keep an entry when its draw is under the limit that its magnitude's rank in its row has.

    Args:
        source, base: flat.
        key: of the draws.
        limits: int32 (row length,): by rank, smallest magnitude first, equal ones in memory order.

    Returns:
        uint8 tensor, flat.
    """
    delta = task_vector(source, base)
    rows = magnitude_bits(delta).view(-1, limits.numel())
    order = rows.argsort(dim=-1, stable=True)
    by_position = torch.empty_like(rows).scatter_(-1, order, limits.to(rows.device).expand_as(rows))
    draws = (uniform(key, delta.numel(), delta.device) * 2.0**24).to(torch.int32)
    return (draws < by_position.view(-1)).to(torch.uint8)
