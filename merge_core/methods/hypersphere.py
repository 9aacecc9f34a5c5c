"""Means on the hypersphere of directions: `multislerp`, `karcher`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from merge_core.kernels.summation import stable_dot, stable_norm
from merge_core.methods.method import InvalidParametersError, Method, MethodInputs, Parameter
from merge_core.methods.registry import register
from merge_core.methods.shared_parameters import WEIGHT

SMALL_ANGLE = 1e-8
"""Directions nearer to a mean than this, or to its opposite, add nothing to its step."""

CANCELLED = 1e-6
"""A mean of unit vectors shorter than this is rounding error: the directions cancel."""


def multislerp(
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    base: Tensor | None,
    *,
    normalize_weights: bool,
    epsilon: float,
) -> Tensor:
    """The weighted mean direction, as long as the weighted mean norm: ``Σ wᵢ|xᵢ| · d/|d|``, ``d = Σ wᵢ xᵢ/|xᵢ|``.

    Goddard, "Multi-SLERP", 2025. Averaging the projections of the directions on the tangent space at the mean
    direction and mapping the average back, as the original does, leads to the mean direction itself: at that
    point the projections cancel.

    Args:
        tensors: one per model; with a base, the task vectors are taken and the base added at the end.
        weights: one per model.
        base: the base tensor, or None.
        normalize_weights: divide the weights by their sum first.
        epsilon: what counts as zero.

    Returns:
        float32 tensor of the models' shape.

    Raises:
        InvalidParametersError: ``normalize_weights`` and the weights sum to zero.
    """
    vectors = list(tensors) if base is None else [tensor - base for tensor in tensors]
    if normalize_weights:
        total = sum(weights)
        if total == 0.0:
            raise InvalidParametersError("the weights sum to 0 and normalize_weights is on. Change a weight")
        weights = [weight / total for weight in weights]
    if len(vectors) == 1:
        result = vectors[0].clone()
        return result if base is None else result.add_(base)
    norms = [stable_norm(vector) for vector in vectors]
    direction = torch.zeros_like(vectors[0])
    for vector, weight, norm in zip(vectors, weights, norms, strict=True):
        direction.add_(vector, alpha=weight / (norm + epsilon))
    length = stable_norm(direction)
    if length < max(epsilon, CANCELLED * sum(abs(weight) for weight in weights)):
        # The directions cancel: the mean direction is not defined, the plain average is.
        result = _weighted_sum(vectors, weights)
    else:
        mean_norm = sum(weight * norm for weight, norm in zip(weights, norms, strict=True))
        result = direction.mul_(mean_norm / length)
    return result if base is None else result.add_(base)


STALLED = 3
"""Steps without a shorter one, after which what is left of them is rounding: a tolerance below that ends nothing."""


def karcher(tensors: Sequence[Tensor], *, max_iter: int, tol: float) -> Tensor:
    """Riemannian centre of mass of the directions, times the mean norm.

    Repeats: average the log maps at the current mean, follow the exponential map, until the average is shorter
    than ``tol``. Karcher 1977; for models arXiv:2603.04972.

    Args:
        tensors: one per model; tensors of zeros have no direction, but count in the mean norm.
        max_iter: most repetitions.
        tol: length of the step that ends them.

    Returns:
        float32 tensor of the models' shape.
    """
    norms = [stable_norm(tensor) for tensor in tensors]
    present = [index for index, norm in enumerate(norms) if norm > 0.0]
    if not present:
        return torch.zeros_like(tensors[0])
    scale = sum(norms) / len(norms)
    units = [_divided(tensors[index], norms[index]) for index in present]
    share = [1.0 / len(units)] * len(units)
    mean = _weighted_sum(units, share)
    length = stable_norm(mean)
    mean = units[0].clone() if length < CANCELLED else _divided(mean, length)
    shortest, stalled = math.inf, 0
    for _ in range(max_iter):
        tangent = torch.zeros_like(mean)
        for unit, weight in zip(units, share, strict=True):
            _add_log_map(tangent, mean, unit, weight)
        step = stable_norm(tangent)
        stalled = 0 if step < shortest else stalled + 1
        shortest = min(step, shortest)
        if step < tol or stalled == STALLED:
            break
        mean = _exp_map(mean, tangent)
        mean = _divided(mean, stable_norm(mean))
    return mean.mul_(scale)


def _divided(tensor: Tensor, number: float) -> Tensor:
    """The quotient, rounded once: by a plain number, torch multiplies with the reciprocal on a GPU."""
    return tensor / torch.full((), number, dtype=tensor.dtype, device=tensor.device)


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    result = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        result.add_(tensor, alpha=weight)
    return result


def _add_log_map(tangent: Tensor, mean: Tensor, unit: Tensor, weight: float) -> None:
    """Add ``weight · θ (u − cos θ m)/sin θ`` in place; directions at the mean itself add nothing."""
    cosine = max(-1.0, min(1.0, stable_dot(unit, mean)))
    angle = math.acos(cosine)
    if math.sin(angle) <= SMALL_ANGLE:
        return
    factor = weight * angle / math.sin(angle)
    tangent.add_(unit, alpha=factor).add_(mean, alpha=-factor * cosine)


def _exp_map(mean: Tensor, tangent: Tensor) -> Tensor:
    length = stable_norm(tangent)
    if length == 0.0:
        return mean.clone()
    return (mean * math.cos(length)).add_(tangent, alpha=math.sin(length) / length)


def _run_multislerp(inputs: MethodInputs) -> Tensor:
    return multislerp(
        inputs.others,
        inputs.of_others("weight"),
        None if inputs.base is None else inputs.base_tensor,
        normalize_weights=inputs.flag("normalize_weights"),
        epsilon=inputs.number("eps"),
    )


def _run_karcher(inputs: MethodInputs) -> Tensor:
    return karcher(inputs.tensors, max_iter=int(inputs.number("max_iter")), tol=inputs.number("tol"))


register(
    Method(
        "multislerp",
        "Multi-SLERP",
        _run_multislerp,
        (
            WEIGHT,
            Parameter("normalize_weights", "flag", "global", True, None, "divide the weights by their sum"),
            Parameter("eps", "number", "global", 1e-8, None, "what counts as zero", least=0.0),
        ),
        "optional",
        "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    ),
    Method(
        "karcher",
        "Karcher Mean",
        _run_karcher,
        (
            Parameter("max_iter", "integer", "global", 10, None, "most iterations", least=1, most=10_000),
            Parameter("tol", "number", "global", 1e-5, None, "length of the step that ends them", least=0.0),
        ),
        "unused",
        "https://arxiv.org/abs/2603.04972",
    ),
)
