"""The Triton kernels as functions of tensors: what `eager` says each means, in one pass where that makes a dozen.

Only what every candidate of a search goes through, and what is counted beforehand; the rest stays in `eager`. Needs
`triton`, and tensors on a GPU; under Triton's interpreter, on a CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merge_core.kernels import triton_contraction, triton_counts, triton_passes
from merge_core.kernels.constants import BLOCK, CODES, DRAW_SUMS, INFINITY, LANES, MIXED, PART, UNBOUNDED
from merge_core.kernels.selection import COLUMNS, MagnitudeRange, RandomSelection, RankedSelection, Selection, rule_row

_EXACT: dict[str, Any] = {"enable_fp_fusion": False}
"""Products are rounded before they are added."""


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
    largest: int | None = None,
) -> bool:
    """`eager.combine`, rounded to ``dtype`` and written to ``out``, of this dtype or float32.

    Whether it is finite; True also where ``largest`` is given, an address as in `output.Output`.
    """
    sources, base = [_stored(source) for source in sources], None if base is None else _stored(base)
    found = torch.zeros(1, dtype=torch.int32, device=out.device) if largest is None else None
    size = triton_passes.ELECTING_STRIP if elect else triton_passes.STRIP
    with _on(out):
        table = _Table(sources, base, rules, [*factors, *(weights or [0.0] * len(factors)), scaling], out.device)
        triton_passes.combine[_programs(out.numel(), size)](
            table.rows,
            table.numbers,
            *_where(base),
            out.data_ptr(),
            largest if found is None else found.data_ptr(),
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
    factors: Sequence[float],
    scales: Sequence[float],
    weights: Sequence[float],
    elect: bool,
) -> Tensor:
    """`eager.contract` of all elements."""
    sources, base = [_stored(source) for source in sources], None if base is None else _stored(base)
    gradient, terms = _stored(gradient), len(sources)
    blocks = -(-gradient.numel() // BLOCK)
    rows = terms + elect
    sums = torch.zeros((rows, blocks), dtype=torch.float64, device=gradient.device)
    if not blocks:
        return sums
    numbers = [*(factors or [0.0] * terms), *scales, *(weights or [0.0] * terms)]
    with _on(gradient):
        table = _Table(sources, base, rules, numbers, gradient.device)
        triton_contraction.contract[(blocks * rows,)](
            table.rows,
            table.numbers,
            *_where(gradient),
            *_where(base),
            sums,
            gradient.numel(),
            rows,
            blocks,
            TERMS=terms,
            RULE=_common(rule_row(rule, looks_up=True)[0] for rule in rules),
            HAS_BASE=base is not None,
            ALIGNED=_aligned(gradient, *sources, base),
            ELECT=elect,
            NORMALIZE=elect and bool(weights),
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


def count_magnitudes(source: Tensor, base: Tensor | None, low_bits: int) -> Tensor:
    """`eager.count_magnitudes`."""
    counts = torch.zeros(1 << 32 - low_bits, dtype=torch.int64, device=source.device)
    _over(triton_counts.count_magnitudes, source, base, None, counts, LOW_BITS=low_bits)
    return counts


def count_by_part(source: Tensor, base: Tensor | None, low_bits: int, values: Sequence[int], part: int) -> Tensor:
    """`eager.count_by_part` of values that begin bins of ``low_bits``."""
    places = torch.full((1 << 31 - low_bits,), -1, dtype=torch.int32)
    places[torch.tensor(values) >> low_bits] = torch.arange(len(values), dtype=torch.int32)
    counts = torch.zeros((-(-source.numel() // part), len(values)), dtype=torch.int64, device=source.device)
    settings = places.to(source.device), len(values)
    _over(triton_counts.count_by_part, source, base, None, *settings, counts, LOW_BITS=low_bits, PART=part)
    return counts


def _over(
    kernel: Any, source: Tensor, base: Tensor | None, rule: Selection, *arguments: object, **constants: int
) -> None:
    """Run a kernel over a task vector."""
    source, base = _stored(source), None if base is None else _stored(base)
    with _on(source):
        kernel[_programs(source.numel(), triton_passes.STRIP)](
            _Table([source], base, [rule], [], source.device).rows,
            *_where(base),
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


def _stored(tensor: Tensor) -> Tensor:
    return (tensor if tensor.dtype in CODES else tensor.to(torch.float32)).contiguous()


def _where(tensor: Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.data_ptr(), CODES[tensor.dtype])


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
            words[place * COLUMNS : (place + 1) * COLUMNS] = (*_where(source), *rule_row(rule, looks_up=True))
        words[split:].view(np.float32)[: len(numbers)] = numbers
        self.rows = torch.from_numpy(words).to(device, non_blocking=True)
        if any(isinstance(rule, MagnitudeRange) and not rule.is_resolved for rule in rules):
            triton_counts.find_ends[(len(sources), 2)](
                self.rows,
                *_where(base),
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
