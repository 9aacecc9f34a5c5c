"""The few operations that every element of a merge goes through.

Compiled by numba on a CPU (`compiled`) and by Triton on a GPU (`fused`), where these are installed, and in plain torch
elsewhere (`eager`, which says what each means).

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
from merge_core.kernels.constants import CODES, PART
from merge_core.kernels.output import FLOAT32, Output
from merge_core.kernels.selection import AfterEqual, Move, RandomSelection, RankedSelection, Selection

_LOG = logging.getLogger(__name__)


def kernels(device: torch.device) -> ModuleType:
    """The fastest of `compiled`, `fused` and `eager` that computes on a device."""
    if device.type == "cpu":
        return compiled_kernels() or eager
    return fused_kernels(device) or eager if device.type == "cuda" else eager


@functools.cache
def compiled_kernels() -> ModuleType | None:
    """The kernels in numba, which does not run everywhere torch does."""
    try:
        from merge_core.kernels import compiled
    except ImportError:
        return None
    return compiled


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


class NotFiniteError(ArithmeticError):
    """NaN or infinity in a result."""


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity; one pass, no memory."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    readable = tensor.dtype in CODES and tensor.is_contiguous()
    return bool((kernels(tensor.device) if readable else eager).is_finite(tensor))


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
    """`eager.combined`, rounded once to a dtype.

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
    dtype, out, like = output.dtype, output.memory, sources[0] if base is None else base
    if out is None or out.dtype not in (dtype, torch.float32) or out.device != like.device or not out.is_contiguous():
        out = torch.empty(like.numel(), dtype=dtype, device=like.device)
    result = out.view(-1)
    settings = (rules, _singles(factors), _singles(weights), elect, *_singles([scaling]))
    combine_into = (kernels(like.device) if dtype in CODES else eager).combine
    if not combine_into(sources, base, *settings, result, dtype, output.largest):
        raise NotFiniteError
    return result


def contract(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    *,
    scales: Sequence[float],
) -> list[float]:
    """The sums of `eager.contract` over all elements.

    Args:
        gradient: flat, of any dtype; contiguous or not.
        sources, base, rules: as in `combine`.
        scales: of what is kept of each source's task vector.

    Returns:
        One inner product per source.
    """
    blocks = kernels(gradient.device).contract(gradient, sources, base, rules, _singles(scales))
    return [eager.fold(row) for row in blocks.cpu()]  # few, and asked for there


def contract_elected(
    gradient: Tensor,
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Selection],
    factors: Sequence[float],
    moves: Sequence[Move],
    *,
    weights: Sequence[float] = (),
) -> tuple[float, list[float]]:
    """The sums of `eager.contract_elected` over all elements.

    Args:
        gradient: flat, of any dtype; contiguous or not.
        sources, base, rules, factors, weights: as in `combine`.
        moves: of terms.

    Returns:
        The inner product with the elected sum, and with what each move adds to it.
    """
    moves = [Move(move.term, move.rule, *_singles([move.factor, move.weight])) for move in moves]
    numbers = _singles(factors), _singles(weights)
    blocks = kernels(gradient.device).contract_elected(gradient, sources, base, rules, *numbers, moves)
    here, *changes = [eager.fold(row) for row in blocks.cpu()]
    return here, changes


def sum_unit(source: Tensor, base: Tensor | None) -> float:
    """The power of two which, twice applied, brings the largest magnitude of a task vector to 30 or 31 bits."""
    largest = kernels(source.device).largest_magnitude(source, base)
    # A number with the exponent e in float32's bits is below 2**(e - 126). By half of the power at a time, since the
    # whole of it is no float32 for the smallest numbers.
    return float(2.0 ** ((31 + 126 - (largest >> 23)) // 2))


def magnitude_sum(source: Tensor, base: Tensor | None, rule: Selection, unit: float) -> int:
    """`eager.sum_magnitudes`, of a task vector with that `sum_unit`."""
    return int(kernels(source.device).sum_magnitudes(source, base, rule, unit))


def sum_by_draw(
    source: Tensor, base: Tensor | None, rule: RandomSelection | RankedSelection, unit: float
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """`eager.sum_by_draw`."""
    return _array(kernels(source.device).sum_by_draw(source, base, rule, unit))


def count_magnitudes(source: Tensor, base: Tensor | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """`eager.count_magnitudes` that occur: int64 (2, codes), those codes, ascending, and how often."""
    table = kernels(source.device).count_magnitudes(source, base)
    occurring = table.nonzero().view(-1)
    return _array(torch.stack([occurring, table[occurring]]))


def count_low_bits(source: Tensor, base: Tensor | None, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """`eager.count_low_bits`."""
    return _array(kernels(source.device).count_low_bits(source, base, number))


def count_equal(source: Tensor, base: Tensor | None, bits: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """How many magnitudes are exactly ``bits`` in every `PART` of the tensor: uint32, one per part."""
    return _array(kernels(source.device).count_equal(source, base, bits, PART)).astype(np.uint32, copy=False)


def count_by_part(source: Tensor, base: Tensor | None, values: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """`count_equal` of values (bits of magnitudes) that begin bins, in one pass: uint32 (parts, values)."""
    return _array(kernels(source.device).count_by_part(source, base, values, PART)).astype(np.uint32, copy=False)


def position_after(source: Tensor, base: Tensor | None, bits: int, number: int, part: int) -> int | AfterEqual:
    """Position, in the whole tensor, after a part's ``number``-th magnitude (from 1) that is exactly ``bits``."""
    span = slice(part * PART, min((part + 1) * PART, source.numel()))
    found: int | AfterEqual = kernels(source.device).position_after(source, base, bits, number, span)
    return found


def ranks(source: Tensor, base: Tensor | None, length: int) -> Tensor:
    """`eager.ranks`, in as few bytes as are enough."""
    found: Tensor = kernels(source.device).ranks(source, base, length)
    return found


def _singles(values: Sequence[float]) -> list[float]:
    """As float32 has them."""
    return [float(np.float32(value)) for value in values]


def _array(tensor: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    found: np.ndarray[Any, np.dtype[Any]] = tensor.cpu().numpy()
    return found
