"""Interpolation on the great circle between two models: `slerp`, `nuslerp`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from merge_core.kernels.summation import stable_dot, stable_norm
from merge_core.methods.method import REQUIRED, Method, MethodInputs, Parameter, SearchRange
from merge_core.methods.registry import register
from merge_core.methods.shared_parameters import WEIGHT

NEARLY_COLINEAR = 0.9995
"""Above this |cosine| the angle is too small to divide by its sine, and the chord is as good as the arc."""

COLINEAR = 1.0 - 1e-6
"""The same for `nuslerp`."""

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
    norms = stable_norm(start) * stable_norm(end)
    cosine = stable_dot(start, end) / norms if norms > 0.0 else 0.0
    if abs(cosine) > colinear:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


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
    total = weights[0] + weights[1]
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    start, end = (first, second) if base is None else (first - base, second - base)
    if flatten or start.dim() < 2:
        result = _mix(start, end, *slerp_coefficients(start, end, t, COLINEAR))
    else:
        result = _slerp_along(start, end, t, dim=0 if row_wise else -1)
    return result if base is None else result.add_(base)


def _slerp_along(start: Tensor, end: Tensor, t: float, dim: int) -> Tensor:
    """One angle for every vector along an axis, the first or the last; in float64, as many vectors as fit a block."""
    length = start.shape[dim]
    shape = (length, -1) if dim == 0 else (-1, length)
    if start.numel() == 0:
        return start.clone()
    matrices = [tensor.reshape(shape) for tensor in (start, end)]
    result = torch.empty_like(matrices[0])
    across = 1 if dim == 0 else 0
    parts = [torch.split(tensor, max(BLOCK // length, 1), dim=across) for tensor in (*matrices, result)]
    for one, two, mixed in zip(*parts, strict=True):
        mixed.copy_(_slerp_vectors(one.double(), two.double(), t, dim))
    return result.view(start.shape)


def _slerp_vectors(start: Tensor, end: Tensor, t: float, dim: int) -> Tensor:
    norms = start.norm(dim=dim, keepdim=True) * end.norm(dim=dim, keepdim=True)
    cosine = (start * end).sum(dim=dim, keepdim=True) / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    colinear = cosine.abs() > COLINEAR
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    sine = torch.sin(angle).masked_fill_(colinear, 1.0)
    start_share = torch.where(colinear, 1.0 - t, torch.sin((1.0 - t) * angle) / sine)
    end_share = torch.where(colinear, t, torch.sin(t * angle) / sine)
    return start * start_share + end * end_share


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
    ),
)
