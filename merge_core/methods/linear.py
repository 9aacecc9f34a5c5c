"""Weighted averages of whole models: `linear`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from merge_core.kernels import dispatch
from merge_core.kernels.output import FLOAT32, Output
from merge_core.methods.method import Derivative, InvalidParametersError, Method, MethodInputs, ParameterSlot
from merge_core.methods.registry import register
from merge_core.methods.shared_parameters import WEIGHT, normalize_parameter


def linear(
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    normalize: bool,
    output: Output = FLOAT32,
) -> Tensor:
    """Average the models: ``Σ wᵢ xᵢ``, divided by ``Σ wᵢ`` if ``normalize``.

    Model soups, Wortsman et al. 2022, arXiv:2203.05482, section 2.

    Args:
        tensors: one per model, equal shapes.
        weights: one per model.
        normalize: divide by the sum of the weights.
        output: what becomes of the result.

    Returns:
        Tensor of the models' shape.

    Raises:
        InvalidParametersError: ``normalize`` and the weights sum to zero.
        NotFiniteError: see `dispatch.combine`.
    """
    total = _total(weights, normalize)
    # A weight of zero leaves a model out: its infinities must not become NaN here.
    terms = [(tensor.reshape(-1), weight / total) for tensor, weight in zip(tensors, weights, strict=True) if weight]
    if not terms:
        return torch.zeros_like(tensors[0], dtype=output.dtype)
    sources, factors = zip(*terms, strict=True)
    result = dispatch.combine(sources, None, [None] * len(sources), factors, output=output)
    return result.view(tensors[0].shape)


def linear_derivatives(
    gradient: Tensor, tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool
) -> list[float]:
    """``∂L/∂wᵢ`` given ``G = ∂L/∂W``: ``⟨G, xᵢ⟩``, or ``⟨G, xᵢ − W⟩ / Σ wⱼ`` if ``normalize``.

    Args:
        gradient: ``G``, of the models' shape.
        tensors, weights, normalize: as in `linear`.

    Returns:
        One number per model.

    Raises:
        InvalidParametersError: ``normalize`` and the weights sum to zero.
    """
    total = _total(weights, normalize)
    flat = [tensor.reshape(-1) for tensor in tensors]
    # Of an average only differences matter, and those of the models are smaller than the models.
    origin = flat[0] if normalize else None
    rules, scales = [None] * len(flat), [1.0] * len(flat)
    products = dispatch.contract(gradient.reshape(-1), flat, origin, rules, scales=scales)
    if not normalize:
        return products
    mean = sum(weight * product for weight, product in zip(weights, products, strict=True)) / total
    return [(product - mean) / total for product in products]


def _total(weights: Sequence[float], normalize: bool) -> float:
    total = sum(weights) if normalize else 1.0
    if total == 0.0:
        raise InvalidParametersError(
            "the weights sum to 0 and normalize is on. Change a weight, or set normalize: false"
        )
    return total


def _run(inputs: MethodInputs) -> Tensor:
    return linear(inputs.tensors, inputs.of_models("weight"), inputs.flag("normalize"), inputs.output)


def _differentiate(inputs: MethodInputs, gradient: Tensor) -> Mapping[ParameterSlot, float]:
    values = linear_derivatives(gradient, inputs.tensors, inputs.of_models("weight"), inputs.flag("normalize"))
    return {ParameterSlot("weight", position): value for position, value in enumerate(values)}


register(
    Method(
        "linear",
        "Linear",
        _run,
        (WEIGHT, normalize_parameter(True)),
        "unused",
        "https://arxiv.org/abs/2203.05482",
        elementwise=True,
        adds_all=True,
        derivative=Derivative(("weight",), _differentiate),
    )
)
