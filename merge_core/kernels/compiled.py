"""The kernels that numba compiles as functions of tensors on a CPU: what `eager` says each means, shared among threads.

Needs `numba`. Kernels are given addresses: whoever calls one holds the tensors until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merge_core.kernels import (
    compiled_contraction,
    compiled_counts,
    compiled_election,
    compiled_passes,
    compiled_ranks,
    compiled_sums,
)
from merge_core.kernels.addresses import address, readable
from merge_core.kernels.constants import BLOCK, CODES, DRAW_SUMS, INFINITY
from merge_core.kernels.eager import low_bits
from merge_core.kernels.selection import RULE_LENGTH, Move, RandomSelection, RankedSelection, Selection, rule_row
from merge_core.kernels.thread_spans import Span, in_spans

# What a thread takes at a time: long enough that starting is free, short enough that nobody waits for the last.
SPAN = 1 << 18

Words = np.ndarray[Any, np.dtype[np.int64]]

_INFINITIES = {torch.bfloat16: INFINITY >> 16, torch.float32: INFINITY, torch.float16: 0x7C00}


def is_finite(tensor: Tensor) -> bool:
    """Of a contiguous one in a dtype of ``CODES``, with entries."""
    where = _where(tensor)
    largest = max(in_spans(lambda span: int(compiled_passes.largest_bits(where, span)), tensor.numel(), SPAN))
    return bool(largest < _INFINITIES[tensor.dtype])


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
    """`eager.combine`."""
    stored, origin = [readable(source) for source in sources], None if base is None else readable(base)
    arguments = (
        _table(stored),
        _where(origin),
        _rules(rules),
        np.array(factors, dtype=np.float32),
        np.array(weights, dtype=np.float32),
        elect,
        np.float32(scaling),
        np.array([out.data_ptr(), CODES[dtype], CODES[out.dtype]], dtype=np.int64),
    )
    kernel = compiled_passes.combine
    return max(in_spans(lambda span: int(kernel(*arguments, span)), out.numel(), SPAN), default=0) < INFINITY


def contract(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    scales: Sequence[float],
) -> Tensor:
    """`eager.contract`."""
    slope, stored = readable(gradient), [readable(source) for source in sources]
    origin = None if base is None else readable(base)
    sums = np.zeros((len(stored), -(-slope.numel() // BLOCK)), dtype=np.float64)
    arguments = (
        _where(slope),
        _table(stored),
        _where(origin),
        _rules(rules),
        np.array(scales, dtype=np.float32),
        sums,
    )
    in_spans(lambda span: compiled_contraction.contract(*arguments, span), slope.numel(), SPAN)
    return torch.from_numpy(sums)


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
    slope, stored = readable(gradient), [readable(source) for source in sources]
    origin = None if base is None else readable(base)
    rows, moved_rows = _rules(rules), _rules([move.rule for move in moves])
    terms = np.array([move.term for move in moves], dtype=np.int64)
    reselected = (moved_rows != rows[terms]).any(axis=1) if moves else np.zeros(0, dtype=bool)
    sums = np.zeros((1 + len(moves), -(-slope.numel() // BLOCK)), dtype=np.float64)
    arguments = (
        _where(slope),
        _table(stored),
        _where(origin),
        rows,
        _numbers(zip(factors, weights or [0.0] * len(factors), strict=True)),
        terms,
        reselected,
        moved_rows,
        _numbers((move.factor, move.weight if weights else 0.0) for move in moves),
        sums,
    )
    in_spans(lambda span: compiled_election.contract_elected(*arguments, span), slope.numel(), SPAN)
    return torch.from_numpy(sums)


def largest_magnitude(source: Tensor, base: Tensor | None) -> int:
    """`eager.largest_magnitude`."""
    return max(map(int, _over(compiled_sums.largest_magnitude, source, base)), default=0)


def sum_magnitudes(source: Tensor, base: Tensor | None, rule: Selection, unit: float) -> int:
    """`eager.sum_magnitudes`."""
    return sum(map(int, _over(compiled_sums.sum_magnitudes, source, base, _rules([rule])[0], np.float32(unit))))


def sum_by_draw(source: Tensor, base: Tensor | None, rule: RandomSelection | RankedSelection, unit: float) -> Tensor:
    """`eager.sum_by_draw`."""
    table = np.zeros(DRAW_SUMS, dtype=np.int64)
    return _added_up(compiled_sums.sum_by_draw, source, base, table, _rules([rule])[0], np.float32(unit))


def count_magnitudes(source: Tensor, base: Tensor | None) -> Tensor:
    """`eager.count_magnitudes`."""
    low = low_bits(source)
    return _added_up(compiled_counts.count_magnitudes, source, base, np.zeros(1 << 32 - low, dtype=np.uint32), low)


def count_low_bits(source: Tensor, base: Tensor | None, number: int) -> Tensor:
    """`eager.count_low_bits`."""
    low = low_bits(source)
    return _added_up(compiled_counts.count_low_bits, source, base, np.zeros(1 << low, dtype=np.uint32), low, number)


def count_equal(source: Tensor, base: Tensor | None, bits: int, part: int) -> Tensor:
    """`eager.count_equal`, as uint32."""
    counts = np.zeros(-(-source.numel() // part), dtype=np.uint32)
    _over(compiled_counts.count_equal, source, base, bits, part, counts, length=max(SPAN, part))
    return torch.from_numpy(counts)


def count_by_part(source: Tensor, base: Tensor | None, values: Sequence[int], part: int) -> Tensor:
    """`eager.count_by_part` of values that begin bins, as uint32."""
    low = low_bits(source)
    places = np.full(1 << 31 - low, len(values), dtype=np.uint16)
    places[np.array(values) >> low] = np.arange(len(values), dtype=np.uint16)
    counts = np.zeros((-(-source.numel() // part), len(values) + 1), dtype=np.uint32)
    _over(compiled_counts.count_by_part, source, base, low, places, part, counts, length=max(SPAN, part))
    return torch.from_numpy(counts)[:, :-1]


def position_after(source: Tensor, base: Tensor | None, bits: int, number: int, span: slice) -> int:
    """`eager.position_after`."""
    stored, origin = readable(source), None if base is None else readable(base)
    within = np.array([span.start, span.stop], dtype=np.int64)
    return 1 + int(compiled_counts.find_equal(_where(stored), _where(origin), bits, number, within))


def ranks(source: Tensor, base: Tensor | None, length: int) -> Tensor:
    """`eager.ranks`, in as few bytes as are enough."""
    found = torch.empty(source.numel(), dtype=torch.uint16 if length <= 1 << 16 else torch.int32)
    rows, at_a_time = source.numel() // length, max(SPAN // length, 1)
    _over(compiled_ranks.rank_rows, source, base, length, found.numpy(), count=rows, length=at_a_time)
    return found


def _over(
    kernel: Callable[..., Any],
    source: Tensor,
    base: Tensor | None,
    *arguments: object,
    count: int | None = None,
    length: int = 0,
) -> list[Any]:
    """Run a kernel over a task vector, by ``length`` of its ``count`` elements; what it returns of each span."""
    stored, origin = readable(source), None if base is None else readable(base)
    where, base_where = _where(stored), _where(origin)
    elements = stored.numel() if count is None else count
    return in_spans(lambda span: kernel(where, base_where, *arguments, span), elements, length or SPAN)


def _added_up(
    kernel: Callable[..., Any], source: Tensor, base: Tensor | None, empty: np.ndarray[Any, Any], *arguments: object
) -> Tensor:
    """The sum of what a kernel adds to tables, one for each span: int64."""

    def fill(where: Words, base_where: Words, span: Span) -> np.ndarray[Any, Any]:
        table = empty.copy()
        kernel(where, base_where, *arguments, table, span)
        return table

    # A table costs memory traffic of its own, hence one long span per thread.
    share = max(-(-source.numel() // torch.get_num_threads()), SPAN)
    total = empty.astype(np.int64)
    for table in _over(fill, source, base, length=share):
        total += table
    return torch.from_numpy(total)


def _where(tensor: Tensor | None) -> Words:
    return np.array(address(tensor), dtype=np.int64)


def _table(tensors: Sequence[Tensor]) -> Words:
    return np.array([address(tensor) for tensor in tensors], dtype=np.int64).reshape(-1, 2)


def _numbers(pairs: Iterable[tuple[float, float]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(list(pairs), dtype=np.float32).reshape(-1, 2)


def _rules(rules: Sequence[Selection]) -> Words:
    return np.array([rule_row(rule) for rule in rules], dtype=np.int64).reshape(-1, RULE_LENGTH)
