"""Interpolation on the great circle between two models: `slerp`, `nuslerp`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from merge_core.kernels import dispatch
from merge_core.kernels.summation import stable_dot, stable_norm, stable_sum
from merge_core.methods.method import REQUIRED, Derivative, Method, MethodInputs, Parameter, ParameterSlot, SearchRange
from merge_core.methods.registry import register
from merge_core.methods.shared_parameters import WEIGHT

NEARLY_COLINEAR = 0.9995
"""Above this |cosine| the angle is too small to divide by its sine, and the chord is as good as the arc."""

COLINEAR = 1.0 - 1e-6
"""The same for `nuslerp`."""

NO_WEIGHT = 1e-6
"""A sum of `nuslerp`'s weights that is smaller in magnitude says nothing about the position."""

BLOCK = 1 << 20
"""Entries that are brought to float64 at a time."""


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Interpolate along the great circle: ``(sin((1−t)θ)·a + sin(tθ)·b) / sin θ``.

    ``θ`` is the angle between the flattened tensors; the tensors keep their own norms. Nearly colinear tensors
    (``|cos θ| > 0.9995``) are interpolated linearly; a tensor of zeros counts as perpendicular. Shoemake 1985,
    "Animating rotation with quaternion curves", section 3.3.

    Args:
        start: the tensor at ``t = 0``.
        end: the tensor at ``t = 1``, same shape.
        t: the position; outside [0, 1] it extrapolates.

    Returns:
        float32 tensor of the same shape.
    """
    return _mix(start, end, *slerp_coefficients(start, end, t, NEARLY_COLINEAR))


def slerp_coefficients(start: Tensor, end: Tensor, t: float, colinear: float) -> tuple[float, float]:
    """The shares of ``start`` and ``end`` at position ``t``, treated as flat vectors."""
    angle = _angle(start, end, colinear)
    if angle is None:
        return 1.0 - t, t
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def slerp_slopes(start: Tensor, end: Tensor, t: float, colinear: float) -> tuple[float, float]:
    """The derivatives of `slerp_coefficients` by ``t``: ``−θ cos((1−t)θ) / sin θ`` and ``θ cos(tθ) / sin θ``."""
    angle = _angle(start, end, colinear)
    if angle is None:
        return -1.0, 1.0
    return (
        -angle * math.cos((1.0 - t) * angle) / math.sin(angle),
        angle * math.cos(t * angle) / math.sin(angle),
    )


def _angle(start: Tensor, end: Tensor, colinear: float) -> float | None:
    """The angle between two tensors; None where they are so nearly colinear that the chord is taken."""
    norms = stable_norm(start) * stable_norm(end)
    cosine = stable_dot(start, end) / norms if norms > 0.0 else 0.0
    return None if abs(cosine) > colinear else math.acos(cosine)


def _mix(start: Tensor, end: Tensor, start_share: float, end_share: float) -> Tensor:
    if max(abs(start_share), abs(end_share)) <= 2.0:
        return torch.mul(start, start_share).add_(end, alpha=end_share)
    # Directions that nearly oppose: large shares whose products cancel, of which float32 would keep few digits.
    result = torch.empty_like(start, memory_format=torch.contiguous_format)
    parts = [torch.split(tensor.reshape(-1), BLOCK) for tensor in (start, end, result)]
    for one, two, mixed in zip(*parts, strict=True):
        mixed.copy_(one.double().mul_(start_share).add_(two.double(), alpha=end_share))
    return result


def nuslerp(
    first: Tensor,
    second: Tensor,
    weights: tuple[float, float],
    base: Tensor | None,
    *,
    flatten: bool,
    row_wise: bool,
) -> Tensor:
    """Slerp with weights instead of a position, of the tensors or of their task vectors.

    The position is ``w₂ / (w₁ + w₂)``, a half when the weights sum to less than 1e-6 in magnitude. Colinear
    tensors are interpolated linearly.

    Args:
        first, second: the two models' tensors.
        weights: of the two.
        base: when given, the task vectors ``x − b`` are interpolated and ``b`` added.
        flatten: one angle for the whole tensor; else one per row of a matrix, or per column.
        row_wise: with ``flatten`` off, interpolate along the first axis: one angle per column. The name is the
            recipe language's.

    Returns:
        float32 tensor of the models' shape.
    """
    t = nuslerp_position(weights)
    start, end = (first, second) if base is None else (first - base, second - base)
    if flatten or start.dim() < 2:
        result = _mix(start, end, *slerp_coefficients(start, end, t, COLINEAR))
    else:
        result = _slerp_along(start, end, t, dim=0 if row_wise else -1)
    return result if base is None else result.add_(base)


def nuslerp_position(weights: tuple[float, float]) -> float:
    """``w₂ / (w₁ + w₂)``, a half when the weights sum to less than 1e-6 in magnitude."""
    total = weights[0] + weights[1]
    return 0.5 if abs(total) < NO_WEIGHT else weights[1] / total


def nuslerp_slope(
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    weights: tuple[float, float],
    base: Tensor | None,
    *,
    flatten: bool,
    row_wise: bool,
) -> float:
    """``∂L/∂t`` of `nuslerp` at its position ``t``, given ``G = ∂L/∂W``.

    Args:
        gradient: ``G``, of the models' shape.
        first, second, weights, base, flatten, row_wise: as there.
    """
    t = nuslerp_position(weights)
    start, end = (first, second) if base is None else (first - base, second - base)
    if flatten or start.dim() < 2:
        start_slope, end_slope = slerp_slopes(start, end, t, COLINEAR)
        return _along(gradient, start, end, start_slope, end_slope)
    dim = 0 if row_wise else -1
    slopes = (
        stable_sum(slope.double() * _slope_of_vectors(one.double(), two.double(), t, dim))
        for slope, one, two in _blocks_along((gradient, start, end), dim)
    )
    return sum(slopes, 0.0)


def _slerp_along(start: Tensor, end: Tensor, t: float, dim: int) -> Tensor:
    """One angle for every vector along an axis, the first or the last; in float64, as many vectors as fit a block."""
    result = torch.empty_like(start, memory_format=torch.contiguous_format)
    for one, two, mixed in _blocks_along((start, end, result), dim):
        mixed.copy_(_slerp_vectors(one.double(), two.double(), t, dim))
    return result


def _blocks_along(tensors: Sequence[Tensor], dim: int) -> Iterator[tuple[Tensor, ...]]:
    """Whole vectors along an axis, as matrices: as many as fit a block."""
    length = tensors[0].shape[dim]
    if tensors[0].numel() == 0:
        return
    matrices = [tensor.reshape((length, -1) if dim == 0 else (-1, length)) for tensor in tensors]
    across = 1 if dim == 0 else 0
    yield from zip(*(torch.split(matrix, max(BLOCK // length, 1), dim=across) for matrix in matrices), strict=True)


def _slerp_vectors(start: Tensor, end: Tensor, t: float, dim: int) -> Tensor:
    angle, sine, colinear = _angles(start, end, dim)
    start_share = torch.where(colinear, 1.0 - t, torch.sin((1.0 - t) * angle) / sine)
    end_share = torch.where(colinear, t, torch.sin(t * angle) / sine)
    return start * start_share + end * end_share


def _along(gradient: Tensor, start: Tensor, end: Tensor, start_share: float, end_share: float) -> float:
    """The inner product of a gradient with `_mix`."""
    flat = [start.reshape(-1), end.reshape(-1)]
    by_start, by_end = dispatch.contract(gradient.reshape(-1), flat, None, [None, None], scales=[1.0, 1.0])
    return start_share * by_start + end_share * by_end


def _slope_of_vectors(start: Tensor, end: Tensor, t: float, dim: int) -> Tensor:
    """The derivative of `_slerp_vectors` by ``t``."""
    angle, sine, colinear = _angles(start, end, dim)
    start_slope = torch.where(colinear, -1.0, -angle * torch.cos((1.0 - t) * angle) / sine)
    end_slope = torch.where(colinear, 1.0, angle * torch.cos(t * angle) / sine)
    return start * start_slope + end * end_slope


def _angles(start: Tensor, end: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The angles between vectors along an axis, their sines (1 where colinear), and which are colinear."""
    norms = start.norm(dim=dim, keepdim=True) * end.norm(dim=dim, keepdim=True)
    cosine = (start * end).sum(dim=dim, keepdim=True) / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    colinear = cosine.abs() > COLINEAR
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    return angle, torch.sin(angle).masked_fill_(colinear, 1.0), colinear


def _run_slerp(inputs: MethodInputs) -> Tensor:
    return slerp(inputs.base_tensor, inputs.others[0], inputs.number("t"))


def _run_nuslerp(inputs: MethodInputs) -> Tensor:
    first, second = inputs.of_others("weight")
    return nuslerp(
        inputs.others[0],
        inputs.others[1],
        (first, second),
        None if inputs.base is None else inputs.base_tensor,
        flatten=inputs.flag("nuslerp_flatten"),
        row_wise=inputs.flag("nuslerp_row_wise"),
    )


def _differentiate_slerp(inputs: MethodInputs, gradient: Tensor) -> Mapping[ParameterSlot, float]:
    start, end = inputs.base_tensor, inputs.others[0]
    start_slope, end_slope = slerp_slopes(start, end, inputs.number("t"), NEARLY_COLINEAR)
    return {ParameterSlot("t"): _along(gradient, start, end, start_slope, end_slope)}


def _differentiate_nuslerp(inputs: MethodInputs, gradient: Tensor) -> Mapping[ParameterSlot, float]:
    first, second = inputs.of_others("weight")
    slope = nuslerp_slope(
        gradient,
        inputs.others[0],
        inputs.others[1],
        (first, second),
        None if inputs.base is None else inputs.base_tensor,
        flatten=inputs.flag("nuslerp_flatten"),
        row_wise=inputs.flag("nuslerp_row_wise"),
    )
    # t = w₂ / (w₁ + w₂), constant where the weights are nobody's.
    total = first + second
    by_first, by_second = (0.0, 0.0) if abs(total) < NO_WEIGHT else (-second / total**2, first / total**2)
    one, two = inputs.other_positions
    return {ParameterSlot("weight", one): slope * by_first, ParameterSlot("weight", two): slope * by_second}


register(
    Method(
        "slerp",
        "SLERP",
        _run_slerp,
        (Parameter("t", "number", "global", REQUIRED, SearchRange(0.0, 1.0), "0 is the base model, 1 the other one"),),
        "required",
        "https://en.wikipedia.org/wiki/Slerp",
        maximum_models=1,
        interpolates=True,
        derivative=Derivative(("t",), _differentiate_slerp),
    ),
    Method(
        "nuslerp",
        "NuSLERP",
        _run_nuslerp,
        (
            WEIGHT,
            Parameter("nuslerp_flatten", "flag", "global", True, None, "one angle for the whole tensor"),
            Parameter("nuslerp_row_wise", "flag", "global", False, None, "without flatten: rows, not columns"),
        ),
        "optional",
        "https://en.wikipedia.org/wiki/Slerp",
        minimum_models=2,
        maximum_models=2,
        only_ratios=True,
        derivative=Derivative(("weight",), _differentiate_nuslerp),
    ),
)
