"""The Triton kernels as functions of tensors: what `eager` says each means, in one pass where that makes a dozen.

Only what every candidate of a search goes through, and what is counted beforehand; the rest is `eager`'s. Needs
`triton`, and tensors on a GPU; under Triton's interpreter, on a CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merge_core.kernels import eager, triton_contraction, triton_counts, triton_election, triton_passes
from merge_core.kernels.addresses import address, readable
from merge_core.kernels.constants import BLOCK, CODES, DRAW_SUMS, INFINITY, LANES, MIXED, PART, UNBOUNDED
from merge_core.kernels.eager import low_bits
from merge_core.kernels.selection import (
    COLUMNS,
    AfterEqual,
    MagnitudeRange,
    Move,
    RandomSelection,
    RankedSelection,
    Selection,
    rule_row,
)

_EXACT: dict[str, Any] = {"enable_fp_fusion": False}
"""Products are rounded before they are added."""

# Asked for too rarely to be worth a kernel.
count_equal, count_low_bits, is_finite, ranks = eager.count_equal, eager.count_low_bits, eager.is_finite, eager.ranks


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
    """`eager.combine`; with ``largest`` nobody waits for whether the result is finite."""
    sources, base = [readable(source) for source in sources], None if base is None else readable(base)
    found: Tensor | None
    if largest is None:
        found = torch.zeros(1, dtype=torch.int32, device=out.device)
        place = found.data_ptr()
    else:
        found, place = None, largest()
    size = triton_passes.ELECTING_STRIP if elect else triton_passes.STRIP
    with _on(out):
        table = _Table(sources, base, rules, [*factors, *(weights or [0.0] * len(factors)), scaling], out.device)
        triton_passes.combine[_programs(out.numel(), size)](
            table.rows,
            table.numbers,
            *address(base),
            out.data_ptr(),
            place,
            out.numel(),
            TERMS=len(sources),
            STORED=_common(CODES[tensor.dtype] for tensor in (*sources, base) if tensor is not None),
            RULE=_common(rule_row(rule, looks_up=True)[0] for rule in rules),
            BOUNDED=any(isinstance(rule, MagnitudeRange) and rule.high < UNBOUNDED for rule in rules),
            HAS_BASE=base is not None,
            ALIGNED=_aligned(*sources, base, out),
            ELECT=elect,
            NORMALIZE=elect and bool(weights),
            OUT=CODES[dtype],
            WIDE=out.dtype == torch.float32,
            SIZE=size,
            **_EXACT,
        )
    return found is None or int(found) < INFINITY


def contract(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    scales: Sequence[float],
) -> Tensor:
    """`eager.contract`."""
    sources, base = [readable(source) for source in sources], None if base is None else readable(base)
    gradient, terms = readable(gradient), len(sources)
    blocks = -(-gradient.numel() // BLOCK)
    sums = torch.zeros((terms, blocks), dtype=torch.float64, device=gradient.device)
    if not blocks:
        return sums
    with _on(gradient):
        table = _Table(sources, base, rules, scales, gradient.device)
        triton_contraction.contract[(blocks * terms,)](
            table.rows,
            table.numbers,
            *address(gradient),
            *address(base),
            sums,
            gradient.numel(),
            terms,
            blocks,
            RULE=_common(rule_row(rule, looks_up=True)[0] for rule in rules),
            HAS_BASE=base is not None,
            ALIGNED=_aligned(gradient, *sources, base),
            STEPS=BLOCK // LANES,
            SIZE=LANES,
            **_EXACT,
        )
    return sums


def contract_elected(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    factors: Sequence[float],
    weights: Sequence[float],
    moves: Sequence[Move],
) -> Tensor:
    """`eager.contract_elected`."""
    sources, base = [readable(source) for source in sources], None if base is None else readable(base)
    gradient, device = readable(gradient), gradient.device
    every = [*rules, *(move.rule for move in moves)]
    numbers = [*factors, *(move.factor for move in moves)]
    numbers += [*weights, *(move.weight for move in moves)] if weights else [0.0] * len(numbers)
    blocks = -(-gradient.numel() // BLOCK)
    sums = torch.zeros((1 + len(moves), blocks), dtype=torch.float64, device=device)
    if not blocks:
        return sums
    with _on(gradient):
        table = _Table([*sources, *(sources[move.term] for move in moves)], base, every, numbers, device)
        triton_election.contract_elected[(blocks * len(sums),)](
            table.rows,
            table.numbers,
            torch.tensor([move.term for move in moves], dtype=torch.int32).to(device, non_blocking=True),
            *address(gradient),
            *address(base),
            sums,
            gradient.numel(),
            len(sums),
            blocks,
            TERMS=len(sources),
            RULE=_common(rule_row(rule, looks_up=True)[0] for rule in every),
            HAS_BASE=base is not None,
            ALIGNED=_aligned(gradient, *sources, base),
            STEPS=BLOCK // LANES,
            SIZE=LANES,
            **_EXACT,
        )
    return sums


def largest_magnitude(source: Tensor, base: Tensor | None) -> int:
    """`eager.largest_magnitude`."""
    largest = torch.zeros(1, dtype=torch.int32, device=source.device)
    _over(triton_counts.largest_magnitude, source, base, None, largest)
    return int(largest)


def sum_magnitudes(source: Tensor, base: Tensor | None, rule: Selection, unit: float) -> int:
    """`eager.sum_magnitudes`."""
    total = torch.zeros(1, dtype=torch.int64, device=source.device)
    _over(triton_counts.sum_magnitudes, source, base, rule, _single(unit, source.device), total)
    return int(total)


def sum_by_draw(source: Tensor, base: Tensor | None, rule: RandomSelection | RankedSelection, unit: float) -> Tensor:
    """`eager.sum_by_draw`."""
    sums = torch.zeros(DRAW_SUMS, dtype=torch.int64, device=source.device)
    ranked = isinstance(rule, RankedSelection)
    _over(triton_counts.sum_by_draw, source, base, rule, _single(unit, source.device), sums, RANKED=ranked)
    return sums


def count_magnitudes(source: Tensor, base: Tensor | None) -> Tensor:
    """`eager.count_magnitudes`."""
    low = low_bits(source)
    counts = torch.zeros(1 << 32 - low, dtype=torch.int64, device=source.device)
    _over(triton_counts.count_magnitudes, source, base, None, counts, LOW_BITS=low)
    return counts


def count_by_part(source: Tensor, base: Tensor | None, values: Sequence[int], part: int) -> Tensor:
    """`eager.count_by_part` of values that begin bins."""
    low = low_bits(source)
    places = torch.full((1 << 31 - low,), -1, dtype=torch.int32)
    places[torch.tensor(values) >> low] = torch.arange(len(values), dtype=torch.int32)
    counts = torch.zeros((-(-source.numel() // part), len(values)), dtype=torch.int64, device=source.device)
    settings = places.to(source.device), len(values)
    _over(triton_counts.count_by_part, source, base, None, *settings, counts, LOW_BITS=low, PART=part)
    return counts


def position_after(source: Tensor, base: Tensor | None, bits: int, number: int, span: slice) -> AfterEqual:
    """`eager.position_after`, for the kernels to look up: a look would wait for the device."""
    return AfterEqual(span.start, number)


def _over(
    kernel: Any, source: Tensor, base: Tensor | None, rule: Selection, *arguments: object, **constants: int
) -> None:
    """Run a kernel over a task vector."""
    source, base = readable(source), None if base is None else readable(base)
    with _on(source):
        kernel[_programs(source.numel(), triton_passes.STRIP)](
            _Table([source], base, [rule], [], source.device).rows,
            *address(base),
            *arguments,
            source.numel(),
            HAS_BASE=base is not None,
            ALIGNED=_aligned(source, base),
            SIZE=triton_passes.STRIP,
            **constants,
            **_EXACT,
        )


def _on(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton takes the current device, whatever tensors it is given."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def _single(value: float, device: torch.device) -> Tensor:
    """As memory: a plain float would be a wider one to the compiler."""
    return torch.tensor([value], dtype=torch.float32).to(device, non_blocking=True)


class _Table:
    """What a kernel reads beside tensors, brought to their device in one copy.

    Attributes:
        rows: int64 (sources, 9): address, dtype code and rule of each source.
        numbers: address of the numbers, float32, which is within the same memory.
    """

    def __init__(
        self,
        sources: Sequence[Tensor],
        base: Tensor | None,
        rules: Sequence[Selection],
        numbers: Sequence[float],
        device: torch.device,
    ) -> None:
        split = len(sources) * COLUMNS
        words = np.zeros(split + -(-len(numbers) // 2), dtype=np.int64)
        for place, (source, rule) in enumerate(zip(sources, rules, strict=True)):
            words[place * COLUMNS : (place + 1) * COLUMNS] = (*address(source), *rule_row(rule, looks_up=True))
        words[split:].view(np.float32)[: len(numbers)] = numbers
        self.rows = torch.from_numpy(words).to(device, non_blocking=True)
        if any(isinstance(rule, MagnitudeRange) and not rule.is_resolved for rule in rules):
            triton_counts.find_ends[(len(sources), 2)](
                self.rows,
                *address(base),
                sources[0].numel(),
                HAS_BASE=base is not None,
                ALIGNED=_aligned(*sources, base),
                PART=PART,
                SIZE=triton_counts.CHUNK,
                **_EXACT,
            )
        self.numbers = self.rows.data_ptr() + split * self.rows.element_size()


def _common(codes: Iterable[int]) -> int:
    """The one that all are, or ``MIXED``."""
    found = set(codes)
    return found.pop() if len(found) == 1 else MIXED


def _aligned(*tensors: Tensor | None) -> bool:
    return all(tensor is None or tensor.data_ptr() % 16 == 0 for tensor in tensors)


def _programs(count: int, size: int) -> tuple[int]:
    return (-(-count // size),)
