"""One model's tensor, as it is or scaled: `passthrough`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from merge_core.kernels import dispatch
from merge_core.methods.method import Derivative, Method, MethodInputs, Parameter, ParameterSlot, SearchRange
from merge_core.methods.registry import register


def passthrough(tensor: Tensor, scale: float | None) -> Tensor:
    """``scale · x``, or ``x`` itself when there is no scale.

    Args:
        tensor: the one source.
        scale: None leaves every bit as it is.
    """
    return tensor if scale is None else tensor * scale


def _run(inputs: MethodInputs) -> Tensor:
    scale = inputs.model_values["scale"][0]
    return passthrough(inputs.tensors[0], None if scale is None else float(scale))


def _differentiate(inputs: MethodInputs, gradient: Tensor) -> Mapping[ParameterSlot, float]:
    source = inputs.tensors[0].reshape(-1)
    (product,) = dispatch.contract(gradient.reshape(-1), [source], None, [None], scales=[1.0])
    return {ParameterSlot("scale", 0): product}


register(
    Method(
        "passthrough",
        "Passthrough",
        _run,
        (Parameter("scale", "number", "model", None, SearchRange(0.0, 1.5), "factor of the tensor"),),
        "unused",
        "https://arxiv.org/abs/2312.15166",
        maximum_models=1,
        derivative=Derivative(("scale",), _differentiate),
    )
)
