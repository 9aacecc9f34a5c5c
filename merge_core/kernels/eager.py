"""What the compiled kernels compute, in plain torch: the meaning of each, and the way on accelerators.

Every operation is rounded by itself, products are added in a second step, and sums have a fixed order, so that
both ways give the same bits on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from merge_core.kernels.constants import BLOCK, DRAW_SUMS, LANES, NO_WEIGHT, UNBOUNDED
from merge_core.kernels.random_numbers import draws
from merge_core.kernels.selection import MagnitudeRange, Move, RandomSelection, RankedSelection, Selection, resolved

SPAN = 1 << 24
"""Elements taken at a time, a power of two: what is made on the way stays small beside the largest tensor."""


def task_vector(source: Tensor, base: Tensor | None) -> Tensor:
    """``source − base`` in float32; the source itself without a base."""
    wide = source.to(torch.float32)
    return wide if base is None else wide - base.to(torch.float32)


def magnitude_bits(values: Tensor) -> Tensor:
    """The bits of float32 magnitudes as int32, which sort as the magnitudes do."""
    return values.view(torch.int32) & 0x7FFFFFFF


def keep_mask(values: Tensor, rule: MagnitudeRange | RandomSelection | RankedSelection, start: int = 0) -> Tensor:
    """Which entries a rule keeps: bool, flat. ``values`` are those from position ``start``, a multiple of `SPAN`."""
    count = values.numel()
    if isinstance(rule, RandomSelection):
        return draws(rule.key, count, values.device, start) < rule.limit
    if isinstance(rule, RankedSelection):
        return draws(rule.key, count, values.device, start) - _rise(rule, start, count) < rule.limit
    bits = magnitude_bits(values)
    mask = bits > rule.low
    before = min(max(resolved(rule.low_end) - start, 0), count)
    mask[:before] |= bits[:before] == rule.low
    if rule.high < UNBOUNDED:
        before = min(max(resolved(rule.high_end) - start, 0), count)
        mask[:before] &= bits[:before] < rule.high
        mask[before:] &= bits[before:] <= rule.high
    return mask


def _rise(rule: RankedSelection, start: int, count: int) -> Tensor:
    """By how much limits are above the lowest: int64."""
    return rule.ranks[start : start + count].to(torch.int64).mul_(rule.slope).bitwise_right_shift_(16)


def kept(values: Tensor, rule: Selection, start: int = 0) -> Tensor:
    """Zero what a rule drops, see `keep_mask`."""
    return values if rule is None else torch.where(keep_mask(values, rule, start), values, 0.0)


def spans(count: int) -> Iterator[slice]:
    """``range(count)`` in parts of `SPAN`; one empty part where there is nothing."""
    for start in range(0, max(count, 1), SPAN):
        yield slice(start, min(start + SPAN, count))


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor with entries has neither NaN nor infinity."""
    ordered = tensor.float() if tensor.element_size() == 1 else tensor  # torch knows no order of float8
    low, high = torch.aminmax(ordered)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def combine(
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    factors: Sequence[float],
    weights: Sequence[float],
    elect: bool,
    scaling: float,
    out: Tensor,
    dtype: torch.dtype,
    largest: Callable[[], int] | None = None,
) -> bool:
    """Round what is `combined` to ``dtype`` and write it to ``out``, of this dtype or float32.

    Args:
        sources, base, rules, factors, weights, elect, scaling: as there.
        out: flat, as the sources.
        dtype: of the result.
        largest: as in `output.Output`; what looks at the result at once has no use for it.

    Returns:
        Whether the result is finite; True where that is left to who gave ``largest``.
    """
    for span in spans(out.numel()):
        some, origin = [source[span] for source in sources], None if base is None else base[span]
        result = combined(some, origin, rules, factors, weights, elect, scaling, span.start)
        out[span] = result if out.dtype == dtype else result.to(dtype)  # the copy rounds
    return out.numel() == 0 or is_finite(out)


def combined(
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    factors: Sequence[float],
    weights: Sequence[float],
    elect: bool,
    scaling: float,
    start: int = 0,
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
        value = kept(task_vector(source, origin), rule, start) * factor
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


def contract(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    scales: Sequence[float],
) -> Tensor:
    """Inner products of a gradient with what is kept of task vectors, ``sᵢ δ̂ᵢ``, by blocks of `BLOCK` elements.

    Products are exact in float64, in which a block's `LANES` sums are folded in halves.

    Args:
        gradient: flat, as the sources.
        sources, base, rules: as in `combined`.
        scales: ``sᵢ``.

    Returns:
        float64 tensor (terms; blocks).
    """
    found = []
    for span in spans(gradient.numel()):
        slope, origin = gradient[span].to(torch.float32), None if base is None else base[span].to(torch.float32)
        deltas = (
            kept(task_vector(source[span], origin), rule, span.start)
            for source, rule in zip(sources, rules, strict=True)
        )
        products = [_products(slope, delta * scale) for delta, scale in zip(deltas, scales, strict=True)]
        found.append(torch.stack(products))
    return torch.cat(found, dim=1)


def contract_elected(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    factors: Sequence[float],
    weights: Sequence[float],
    moves: Sequence[Move],
) -> Tensor:
    """Inner products of a gradient with an elected sum, and with what each of some moves would add to it.

    The sum is that of `combined` with ``elect``, unscaled and without the base. Of a move, the term as it is leaves the
    sums of both signs, and the term as it becomes joins them. (The sign is that of the sum of both, so where all terms
    add up to 0 but for rounding it can be another than `combined` elects.)

    Args:
        gradient: flat, as the sources.
        sources, base, rules, factors, weights: as in `combined`.
        moves: of terms; weights of which nothing is divided by are not read.

    Returns:
        float64 tensor (1 + moves; blocks of `BLOCK` elements).
    """
    shares = weights or [0.0] * len(factors)
    found = []
    for span in spans(gradient.numel()):
        slope, origin = gradient[span].to(torch.float32), None if base is None else base[span].to(torch.float32)
        deltas = [task_vector(source[span], origin) for source in sources]
        votes = [
            _votes(kept(delta, rule, span.start) * factor, share)
            for delta, rule, factor, share in zip(deltas, rules, factors, shares, strict=True)
        ]
        sums = [torch.zeros_like(slope) for _ in range(4)]
        for vote in votes:
            sums = [total + part for total, part in zip(sums, vote, strict=True)]
        here = _elected(*sums)
        products = [_products(slope, here)]
        for move in moves:
            term = kept(deltas[move.term], move.rule, span.start) * move.factor
            joining = _votes(term, move.weight if weights else 0.0)
            moved = [
                total - before + after for total, before, after in zip(sums, votes[move.term], joining, strict=True)
            ]
            products.append(_products(slope, _elected(*moved) - here))
        found.append(torch.stack(products))
    return torch.cat(found, dim=1)


def _votes(value: Tensor, weight: float) -> list[Tensor]:
    """What a term adds to the sum of each sign, and to the weights of each; a NaN counts as minus, so it is found."""
    above, below = value > 0, value < 0
    return [
        torch.where(above, value, 0.0),
        torch.where(above, 0.0, value),
        above.to(torch.float32) * weight,
        below.to(torch.float32) * weight,
    ]


def _elected(above: Tensor, below: Tensor, for_above: Tensor, for_below: Tensor) -> Tensor:
    plus = above + below >= 0
    share = torch.where(plus, for_above, for_below)
    return torch.where(plus, above, below) / torch.where(share.abs() >= NO_WEIGHT, share, 1.0)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """The inner products of blocks: float64."""
    product = torch.nn.functional.pad(left.to(torch.float64) * right, (0, -left.numel() % BLOCK)).view(-1, BLOCK)
    values = product[:, :LANES]
    for begin in range(LANES, BLOCK, LANES):
        values = values + product[:, begin : begin + LANES]
    return _halved(values)


def _halved(values: Tensor) -> Tensor:
    """Rows whose length is a power of two, folded in halves to their sums."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    return values.reshape(-1)


def largest_magnitude(source: Tensor, base: Tensor | None) -> int:
    """The bits of the largest magnitude; 0 of nothing."""
    largest = [magnitude_bits(_part(source, base, span)).max() for span in spans(source.numel()) if source.numel()]
    return int(torch.stack(largest).max()) if largest else 0


def sum_magnitudes(source: Tensor, base: Tensor | None, rule: Selection, unit: float) -> int:
    """The sum of ``⌊unit² · |δ|⌋`` over what a rule keeps: whole numbers, which no order of adding rounds.

    Args:
        source, base: flat.
        rule: what is kept.
        unit: a power of two for which no term has more than 31 bits.
    """
    parts = (kept(_part(source, base, span), rule, span.start) for span in spans(source.numel()))
    return sum(int(_in_units(part, unit).sum()) for part in parts)


def sum_by_draw(source: Tensor, base: Tensor | None, rule: RandomSelection | RankedSelection, unit: float) -> Tensor:
    """`sum_magnitudes` of what each limit adds to what the one below it keeps: int64 (`DRAW_SUMS`,).

    Element ``2¹⁶ + l - 1`` is what ``limit = l`` adds, whatever the rule's own is.
    """
    total = torch.zeros(DRAW_SUMS, dtype=torch.int64, device=source.device)
    for span in spans(source.numel()):
        units = _in_units(_part(source, base, span), unit)
        places = draws(rule.key, units.numel(), source.device, span.start).to(torch.int64)
        if isinstance(rule, RankedSelection):
            places -= _rise(rule, span.start, units.numel())
        total.scatter_add_(0, places + (1 << 16), units)
    return total


def _in_units(values: Tensor, unit: float) -> Tensor:
    return values.abs().mul_(unit).mul_(unit).to(torch.int32).to(torch.int64)


def fold(sums: Tensor) -> float:
    """The sum of a flat float64 tensor, folded in halves."""
    while sums.numel() > 1:
        padded = torch.nn.functional.pad(sums, (0, sums.numel() % 2))
        half = padded.numel() // 2
        sums = padded[:half] + padded[half:]
    return float(sums[0]) if sums.numel() else 0.0


def low_bits(source: Tensor) -> int:
    """How many last bits the magnitudes of a bin differ in.

    A difference of two 16-bit numbers of about equal size has one significant bit more than they, and is 0 after it:
    then nearly every magnitude is the one that its bin begins with.
    """
    return 12 if source.dtype == torch.float16 else 15


def count_magnitudes(source: Tensor, base: Tensor | None) -> Tensor:
    """How often magnitudes have each code: int64 (2³²⁻ˡᵒʷ,).

    A bin is all magnitudes that differ in their `low_bits`. The one whose low bits are 0 has the bin's number doubled
    as its code, and the rest of the bin one more; so codes rise with magnitudes.
    """
    low = low_bits(source)
    total = torch.zeros(1 << 32 - low, dtype=torch.int64, device=source.device)
    for span in spans(source.numel()):
        bits = magnitude_bits(_part(source, base, span))
        codes = (bits >> low) * 2 + (bits & (1 << low) - 1 != 0)
        total += torch.bincount(codes, minlength=total.numel())
    return total


def count_low_bits(source: Tensor, base: Tensor | None, number: int) -> Tensor:
    """How often the `low_bits` of a magnitude have each value in bin ``number``: int64 (2ˡᵒʷ,)."""
    low = low_bits(source)
    total = torch.zeros(1 << low, dtype=torch.int64, device=source.device)
    for span in spans(source.numel()):
        bits = magnitude_bits(_part(source, base, span))
        total += torch.bincount(bits[bits >> low == number] & (1 << low) - 1, minlength=total.numel())
    return total


def count_equal(source: Tensor, base: Tensor | None, bits: int, part: int) -> Tensor:
    """How many magnitudes are exactly ``bits`` in every ``part`` elements, which divides `SPAN`: int64 (parts,)."""
    counts = []
    for span in spans(source.numel()):
        equal = magnitude_bits(_part(source, base, span)) == bits
        counts.append(torch.nn.functional.pad(equal, (0, -equal.numel() % part)).view(-1, part).sum(dim=1))
    return torch.cat(counts)


def count_by_part(source: Tensor, base: Tensor | None, values: Sequence[int], part: int) -> Tensor:
    """How many magnitudes are exactly each of some ``values`` (bits) in every ``part`` elements: int64 (parts, values).

    ``part`` divides `SPAN`.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    wanted = torch.tensor([values[place] for place in order], dtype=torch.int32, device=source.device)
    places, width = torch.tensor(order, device=source.device), len(values) + 1
    rows = []
    for span in spans(source.numel()):
        bits = magnitude_bits(_part(source, base, span))
        near = torch.searchsorted(wanted, bits).clamp_(max=len(values) - 1)
        place = torch.where(wanted[near] == bits, places[near], len(values))
        row = torch.arange(bits.numel(), device=bits.device) // part
        parts = -(-bits.numel() // part)
        rows.append(torch.bincount(row * width + place, minlength=parts * width).view(parts, width)[:, :-1])
    return torch.cat(rows)


def position_after(source: Tensor, base: Tensor | None, bits: int, number: int, span: slice) -> int:
    """Position, in the whole tensor, after a span's ``number``-th magnitude (from 1) that is exactly ``bits``."""
    equal = magnitude_bits(_part(source, base, span)) == bits
    return int(span.start) + 1 + int(equal.nonzero()[number - 1])


def _part(source: Tensor, base: Tensor | None, span: slice) -> Tensor:
    """Some elements of a task vector."""
    return task_vector(source[span], None if base is None else base[span])


def ranks(source: Tensor, base: Tensor | None, length: int) -> Tensor:
    """Rank of every magnitude in its row of ``length``, smallest first, equal ones in memory order: int32, flat."""
    result = torch.empty(source.numel(), dtype=torch.int32, device=source.device)
    rows = max(SPAN // length, 1)
    for start in range(0, source.numel(), rows * length):
        span = slice(start, start + rows * length)
        order = magnitude_bits(_part(source, base, span)).view(-1, length).argsort(dim=-1, stable=True)
        rank = torch.arange(length, dtype=torch.int32, device=source.device).expand(order.shape)
        result[span].view(order.shape).scatter_(-1, order, rank)
    return result
