"""Interpolation on the great circle between two models: `slerp`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from merge_core.summation import stable_dot, stable_norm

NEARLY_COLINEAR = 0.9995
"""Above this |cosine| the angle is too small to divide by its sine, and the chord is as good as the arc."""


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Interpolate along the great circle: ``(sin((1−t)θ)·a + sin(tθ)·b) / sin θ``.

    ``θ`` is the angle between the flattened tensors; the tensors keep their own norms. Nearly colinear tensors
    (``|cos θ| > 0.9995``), and a tensor of zeros, are interpolated linearly. Shoemake 1985, "Animating rotation
    with quaternion curves", section 3.3.

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
    cosine = stable_dot(start, end) / norms if norms > 0.0 else 1.0
    if abs(cosine) > colinear:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
