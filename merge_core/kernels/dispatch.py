"""The few operations that every element of a merge goes through.

Compiled by numba on a CPU and by Triton on a GPU, where these are installed, and in plain torch elsewhere.

Tensors are flat, of equal length, on one device, in the dtype they are stored in. The results have the same bits
on any device, with any number of threads, compiled or not.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merge_core.kernels import eager
from merge_core.kernels.constants import BLOCK, CODES, DRAW_SUMS, INFINITY, PART
from merge_core.kernels.output import FLOAT32, Output
from merge_core.kernels.selection import RULE_LENGTH, AfterEqual, RandomSelection, RankedSelection, Selection, rule_row
from merge_core.kernels.thread_spans import Span, in_spans

compiled: ModuleType | None
try:
    from merge_core.kernels import (
        compiled_contraction,
        compiled_counts,
        compiled_passes,
        compiled_ranks,
        compiled_sums,
    )
except ImportError:  # numba does not run everywhere torch does
    compiled = None
else:
    compiled = compiled_passes

# What a thread takes at a time: long enough that starting is free, short enough that nobody waits for the last.
SPAN = 1 << 18

_LOG = logging.getLogger(__name__)
_INFINITIES = {torch.bfloat16: INFINITY >> 16, torch.float32: INFINITY, torch.float16: 0x7C00}


@functools.cache
def fused_kernels(device: torch.device) -> ModuleType | None:
    """The kernels in Triton, where they are installed and compute on a device what plain torch does."""
    try:
        from merge_core.kernels import fused, fused_check
    except ImportError:
        return None
    reason = "they compute something else"
    try:
        if fused_check.same_bits(device):
            return fused
    except Exception as error:  # a compiler's, a driver's, Triton's own: all are slower and right without it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    _LOG.warning("merging on %s by plain torch, not by Triton's kernels: %s", device, reason)
    return None


def _accelerated(tensor: Tensor) -> ModuleType | None:
    return fused_kernels(tensor.device) if tensor.device.type == "cuda" else None


class NotFiniteError(ArithmeticError):
    """NaN or infinity in a result."""


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity; one pass, no memory."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    if compiled is not None and tensor.device.type == "cpu" and tensor.dtype in CODES and tensor.is_contiguous():
        where, kernel = _array(tensor), compiled.largest_bits
        largest = max(in_spans(lambda span: int(kernel(where, span)), tensor.numel(), SPAN))
        return bool(largest < _INFINITIES[tensor.dtype])
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def combine(
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    factors: Sequence[float],
    *,
    weights: Sequence[float] = (),
    elect: bool = False,
    scaling: float = 1.0,
    output: Output = FLOAT32,
) -> Tensor:
    """`eager.combine`, rounded once to a dtype.

    Args:
        sources, base: see above; there is at least one, base included.
        rules: what is kept of each source's task vector.
        factors: of each source's task vector.
        weights: what elected terms are divided by the sum of; () for none.
        elect, scaling: as there.
        output: what becomes of the result.

    Returns:
        The output's memory or a new tensor of its dtype; flat.

    Raises:
        NotFiniteError: NaN or infinity in the result, unless its largest magnitude is left for the caller.
    """
    dtype, out = output.dtype, output.memory
    factors = [_single(factor) for factor in factors]
    weights = [_single(weight) for weight in weights]
    inputs = [*sources] if base is None else [*sources, base]
    if compiled is None or inputs[0].device.type != "cpu" or dtype not in CODES:
        if out is not None and out.dtype in (dtype, torch.float32) and out.device == inputs[0].device:
            result = out.view(-1)
        else:
            result = torch.empty(inputs[0].numel(), dtype=dtype, device=inputs[0].device)
        if (fused := _accelerated(result)) is not None and dtype in CODES:
            largest = None if output.largest is None else output.largest()
            settings = (rules, factors, weights, elect, _single(scaling))
            if not fused.combine(sources, base, *settings, result, dtype, largest):
                raise NotFiniteError
            return result
        for part in eager.spans(result.numel()):
            parts, origin = [source[part] for source in sources], None if base is None else base[part]
            merged = eager.combine(parts, origin, rules, factors, weights, elect, _single(scaling), part.start)
            result[part] = merged if result.dtype == dtype else merged.to(dtype)  # the copy rounds
        if not is_finite(result):
            raise NotFiniteError
        return result
    stored = [_stored(source) for source in sources]
    origin = None if base is None else _stored(base)
    if out is None or out.dtype not in (dtype, torch.float32) or out.device.type != "cpu" or not out.is_contiguous():
        out = torch.empty(inputs[0].numel(), dtype=dtype)
    arguments = (
        np.array([_where(source) for source in stored], dtype=np.int64).reshape(-1, 2),
        _base(origin),
        _rules(rules),
        np.array(factors, dtype=np.float32),
        np.array(weights, dtype=np.float32),
        elect,
        np.float32(scaling),
        np.array([out.data_ptr(), CODES[dtype], CODES[out.dtype]], dtype=np.int64),
    )
    kernel = compiled.combine
    largest = max(in_spans(lambda span: int(kernel(*arguments, span)), out.numel(), SPAN), default=0)
    if largest >= INFINITY:
        raise NotFiniteError
    return out.view(-1)


def contract(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    *,
    factors: Sequence[float] = (),
    scales: Sequence[float],
    weights: Sequence[float] = (),
    elect: bool = False,
) -> list[float]:
    """The sums of `eager.contract` over all elements.

    Args:
        gradient: flat, of any dtype; contiguous or not.
        sources, base, rules, weights, elect: as in `combine`.
        factors: of each source's task vector there; what is not elected needs none.
        scales: the part of each factor that is not the term's weight.

    Returns:
        One inner product per source, and one more with ``elect``.
    """
    factors, scales, weights = ([_single(value) for value in values] for values in (factors, scales, weights))
    if compiled is None or gradient.device.type != "cpu":
        if (fused := _accelerated(gradient)) is not None:
            blocks = fused.contract(gradient, sources, base, rules, factors, scales, weights, elect)
        else:
            parts = []
            for part in eager.spans(gradient.numel()):
                some, origin = [source[part] for source in sources], None if base is None else base[part]
                parts.append(
                    eager.contract(gradient[part], some, origin, rules, factors, scales, weights, elect, part.start)
                )
            blocks = torch.cat(parts, dim=1)
        return [eager.fold(row) for row in blocks.cpu()]  # few, and asked for there
    slope, stored = _stored(gradient), [_stored(source) for source in sources]
    origin = None if base is None else _stored(base)
    sums = np.zeros((len(stored) + elect, max(-(-slope.numel() // BLOCK), 1)), dtype=np.float64)
    arguments = (
        _array(slope),
        np.array([_where(source) for source in stored], dtype=np.int64).reshape(-1, 2),
        _base(origin),
        _rules(rules),
        np.array(factors, dtype=np.float32),
        np.array(scales, dtype=np.float32),
        np.array(weights, dtype=np.float32),
        elect,
        sums,
    )
    kernel = compiled_contraction.contract
    in_spans(lambda span: kernel(*arguments, span), slope.numel(), SPAN)
    return [eager.fold(row) for row in torch.from_numpy(sums)]


def sum_unit(source: Tensor, base: Tensor | None) -> float:
    """The power of two which, twice applied, brings the largest magnitude of a task vector to 30 or 31 bits."""
    if compiled is None or source.device.type != "cpu":
        largest = (_accelerated(source) or eager).largest_magnitude(source, base)
    else:
        stored, origin = _stored(source), None if base is None else _stored(base)
        where, base_where, kernel = _array(stored), _base(origin), compiled_sums.largest_magnitude
        largest = max(in_spans(lambda span: int(kernel(where, base_where, span)), stored.numel(), SPAN), default=0)
    # A number with the exponent e in float32's bits is below 2**(e - 126). By half of the power at a time, since the
    # whole of it is no float32 for the smallest numbers.
    return float(2.0 ** ((31 + 126 - (largest >> 23)) // 2))


def magnitude_sum(source: Tensor, base: Tensor | None, rule: Selection, unit: float) -> int:
    """`eager.sum_magnitudes`, of a task vector with that `sum_unit`."""
    if compiled is None or source.device.type != "cpu":
        return int((_accelerated(source) or eager).sum_magnitudes(source, base, rule, unit))
    stored, origin = _stored(source), None if base is None else _stored(base)
    where, base_where, row, single = _array(stored), _base(origin), _rules([rule])[0], np.float32(unit)
    kernel = compiled_sums.sum_magnitudes
    return sum(in_spans(lambda span: int(kernel(where, base_where, row, single, span)), stored.numel(), SPAN))


def sum_by_draw(
    source: Tensor, base: Tensor | None, rule: RandomSelection | RankedSelection, unit: float
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """`eager.sum_by_draw`."""
    if compiled is None or source.device.type != "cpu":
        found: Tensor = (_accelerated(source) or eager).sum_by_draw(source, base, rule, unit)
        return found.cpu().numpy()
    stored, origin = _stored(source), None if base is None else _stored(base)
    where, base_where, row, single = _array(stored), _base(origin), _rules([rule])[0], np.float32(unit)
    kernel = compiled_sums.sum_by_draw

    def add(span: Span) -> np.ndarray[Any, np.dtype[np.int64]]:
        sums = np.zeros(DRAW_SUMS, dtype=np.int64)
        kernel(where, base_where, row, single, sums, span)
        return sums

    return _added(in_spans(add, stored.numel(), _shares(stored)))


def low_bits(source: Tensor) -> int:
    """How many last bits the magnitudes of a bin differ in, see `eager.count_magnitudes`.

    A difference of two 16-bit numbers of about equal size has one significant bit more than they, and is 0 after it:
    then nearly every magnitude is the one that its bin begins with.
    """
    return 12 if source.dtype == torch.float16 else 15


def count_magnitudes(source: Tensor, base: Tensor | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """`eager.count_magnitudes` with `low_bits`: int64 (2, codes), those that occur, ascending, and how often."""
    low = low_bits(source)
    if compiled is None or source.device.type != "cpu":
        table = (_accelerated(source) or eager).count_magnitudes(source, base, low)
        occurring = table.nonzero().view(-1)
        return torch.stack([occurring, table[occurring]]).cpu().numpy()
    stored, origin = _stored(source), None if base is None else _stored(base)
    where, base_where, kernel = _array(stored), _base(origin), compiled_counts.count_magnitudes

    def count(span: Span) -> np.ndarray[Any, np.dtype[np.uint32]]:
        counts = np.zeros(1 << 32 - low, dtype=np.uint32)
        kernel(where, base_where, low, counts, span)
        return counts

    counts = _added(in_spans(count, stored.numel(), _shares(stored)))
    codes = counts.nonzero()[0]
    return np.stack([codes, counts[codes]])


def count_low_bits(source: Tensor, base: Tensor | None, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How often the `low_bits` have each value in bin ``number``: int64 (2ˡᵒʷ,)."""
    low = low_bits(source)
    if compiled is None or source.device.type != "cpu":
        return eager.count_low_bits(source, base, low, number).cpu().numpy()
    stored, origin = _stored(source), None if base is None else _stored(base)
    where, base_where, kernel = _array(stored), _base(origin), compiled_counts.count_low_bits

    def count(span: Span) -> np.ndarray[Any, np.dtype[np.uint32]]:
        counts = np.zeros(1 << low, dtype=np.uint32)
        kernel(where, base_where, low, number, counts, span)
        return counts

    return _added(in_spans(count, stored.numel(), _shares(stored)))


def count_equal(source: Tensor, base: Tensor | None, bits: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """How many magnitudes are exactly ``bits`` in every `PART` of the tensor: uint32, one per part."""
    if compiled is None or source.device.type != "cpu":
        return eager.count_equal(source, base, bits, PART).cpu().numpy().astype(np.uint32)
    stored, origin = _stored(source), None if base is None else _stored(base)
    where, base_where, kernel = _array(stored), _base(origin), compiled_counts.count_equal
    counts = np.zeros(-(-stored.numel() // PART), dtype=np.uint32)
    in_spans(lambda span: kernel(where, base_where, bits, PART, counts, span), stored.numel(), max(SPAN, PART))
    return counts


def count_by_part(source: Tensor, base: Tensor | None, values: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """`count_equal` of values (bits of magnitudes) that begin bins, in one pass: uint32 (parts, values)."""
    low = low_bits(source)
    if compiled is None or source.device.type != "cpu":
        found: Tensor
        if (fused := _accelerated(source)) is not None:
            found = fused.count_by_part(source, base, low, values, PART)
        else:
            found = eager.count_by_part(source, base, values, PART)
        return found.cpu().numpy().astype(np.uint32)
    stored, origin = _stored(source), None if base is None else _stored(base)
    places = np.full(1 << 31 - low, len(values), dtype=np.uint16)
    places[np.array(values) >> low] = np.arange(len(values), dtype=np.uint16)
    where, base_where, kernel = _array(stored), _base(origin), compiled_counts.count_by_part
    counts = np.zeros((-(-stored.numel() // PART), len(values) + 1), dtype=np.uint32)
    in_spans(lambda span: kernel(where, base_where, low, places, PART, counts, span), stored.numel(), max(SPAN, PART))
    return counts[:, :-1]


def position_after(source: Tensor, base: Tensor | None, bits: int, number: int, part: int) -> int | AfterEqual:
    """Position, in the whole tensor, after a part's ``number``-th magnitude (from 1) that is exactly ``bits``."""
    start, end = part * PART, min((part + 1) * PART, source.numel())
    if compiled is None or source.device.type != "cpu":
        if _accelerated(source) is not None:
            return AfterEqual(start, number)  # a look would wait for the device
        values = eager.task_vector(source[start:end], None if base is None else base[start:end])
        return start + 1 + int((eager.magnitude_bits(values) == bits).nonzero()[number - 1])
    # Not in torch: its threads would go on waiting for more, and take the processors from ours.
    stored, origin = _stored(source), None if base is None else _stored(base)
    span = np.array([start, end], dtype=np.int64)
    return 1 + int(compiled_counts.find_equal(_array(stored), _base(origin), bits, number, span))


def ranks(source: Tensor, base: Tensor | None, length: int) -> Tensor:
    """`eager.ranks`, in as few bytes as are enough."""
    if compiled is None or source.device.type != "cpu":
        return eager.ranks(source, base, length)
    stored, origin = _stored(source), None if base is None else _stored(base)
    found = torch.empty(stored.numel(), dtype=torch.uint16 if length <= 1 << 16 else torch.int32)
    where, base_where, kernel, places = _array(stored), _base(origin), compiled_ranks.rank_rows, found.numpy()
    rows = stored.numel() // length
    in_spans(lambda span: kernel(where, base_where, length, places, span), rows, max(SPAN // length, 1))
    return found


def _single(value: float) -> float:
    return float(np.float32(value))


def _stored(tensor: Tensor) -> Tensor:
    return (tensor if tensor.dtype in CODES else tensor.to(torch.float32)).contiguous()


def _where(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), CODES[tensor.dtype]


def _array(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(_where(tensor), dtype=np.int64)


def _shares(tensor: Tensor) -> int:
    """Elements of a span for counting: a count costs memory traffic of its own, hence one long span per thread."""
    return max(-(-tensor.numel() // torch.get_num_threads()), SPAN)


def _added(counts: Sequence[np.ndarray[Any, np.dtype[Any]]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    total = counts[0].astype(np.int64)
    for count in counts[1:]:
        total += count
    return total


def _base(base: Tensor | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array((0, 0) if base is None else _where(base), dtype=np.int64)


def _rules(rules: Sequence[Selection]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([rule_row(rule) for rule in rules], dtype=np.int64).reshape(-1, RULE_LENGTH)
