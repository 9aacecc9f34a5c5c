"""A method run with its defaults, and example values for every method of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from merge_core import METHODS
from merge_core.methods import MethodInputs
from merge_core.methods.method import Required

Array = np.ndarray[Any, np.dtype[np.float64]]


def run(
    method: str,
    inputs: Sequence[Tensor],
    base: int | None = None,
    per_model: dict[str, list[float | None]] | None = None,
    **settings: Any,
) -> Tensor:
    """Run a method with its defaults filled in."""
    row = METHODS[method]
    model_values: dict[str, Sequence[Any]] = dict(per_model or {})
    values: dict[str, Any] = dict(settings)
    for parameter in row.parameters:
        default = None if isinstance(parameter.default, Required) else parameter.default
        if parameter.scope == "model":
            model_values.setdefault(parameter.name, [default] * len(inputs))
        else:
            values.setdefault(parameter.name, default)
    before = [tensor.clone() for tensor in inputs]
    result = row.run(MethodInputs(inputs, base, model_values, values, key=lambda position: position + 1))
    assert all(torch.equal(one, two) for one, two in zip(before, inputs, strict=True)), "inputs were written to"
    assert result.dtype == torch.float32
    assert result.shape == inputs[0].shape
    return result


def double(tensor: Tensor) -> Array:
    return tensor.double().numpy()


def close(result: Tensor, expected: Array, tolerance: float = 2e-6) -> None:
    np.testing.assert_allclose(double(result), expected, rtol=0, atol=tolerance * np.abs(expected).max(initial=1.0))


EXAMPLES = {"weight": 0.5, "density": 0.5, "t": 0.1}


def example(method: str) -> tuple[str, dict[str, list[float | None]], dict[str, Any]]:
    """Parameter values for two models, the first of them the base where the method requires one."""
    row = METHODS[method]
    values = {name: EXAMPLES[name] for name in row.by_name if name in EXAMPLES}
    per_model: dict[str, list[float | None]] = {
        name: [None if row.base == "required" else 0.2, value]
        for name, value in values.items()
        if row.by_name[name].scope == "model"
    }
    return method, per_model, {name: value for name, value in values.items() if name not in per_model}


EVERY = [example(name) for name in METHODS if name != "passthrough"]
EVERY.append(("nuslerp", {"weight": [0.2, 0.5]}, {"nuslerp_flatten": False}))
