"""Interpolation on the great circle between two models: `slerp`, `nuslerp`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from merge_core.summation import stable_dot, stable_norm

NEARLY_COLINEAR = 0.9995
"""Above this |cosine| the angle is too small to divide by its sine, and the chord is as good as the arc."""

COLINEAR = 1.0 - 1e-6
"""The same for `nuslerp`."""


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
    start_share, end_share = slerp_coefficients(start, end, t, NEARLY_COLINEAR)
    return torch.mul(start, start_share).add_(end, alpha=end_share)


def slerp_coefficients(start: Tensor, end: Tensor, t: float, colinear: float) -> tuple[float, float]:
    """The shares of ``start`` and ``end`` at position ``t``, treated as flat vectors."""
    norms = stable_norm(start) * stable_norm(end)
    cosine = stable_dot(start, end) / norms if norms > 0.0 else 0.0
    if abs(cosine) > colinear:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


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
        start_share, end_share = slerp_coefficients(start, end, t, COLINEAR)
        result = torch.mul(start, start_share).add_(end, alpha=end_share)
    else:
        result = _slerp_along(start, end, t, dim=0 if row_wise else -1)
    return result if base is None else result.add_(base)


def _slerp_along(start: Tensor, end: Tensor, t: float, dim: int) -> Tensor:
    norms = start.norm(dim=dim, keepdim=True) * end.norm(dim=dim, keepdim=True)
    cosine = (start * end).sum(dim=dim, keepdim=True) / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    colinear = cosine.abs() > COLINEAR
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    sine = torch.sin(angle).masked_fill_(colinear, 1.0)
    start_share = torch.where(colinear, 1.0 - t, torch.sin((1.0 - t) * angle) / sine)
    end_share = torch.where(colinear, t, torch.sin(t * angle) / sine)
    return start * start_share + end * end_share
