"""Derivatives of merge methods by a formula, against finite differences of a merge in float64 by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_runs import Array, double
from torch import Tensor

from merge_core.kernels import compiled, dispatch, eager
from merge_core.kernels.order_statistics import TaskVectorStatistics
from merge_core.kernels.random_numbers import draws
from merge_core.methods import METHODS, MethodInputs, ParameterSlot
from merge_core.methods.method import InvalidParametersError, Required

TASK_VECTOR_METHODS = [name for name, row in METHODS.items() if {"weight", "lambda"} <= set(row.by_formula)]
SHAPES = st.sampled_from([(7,), (12, 9), (3, 4, 5), (4099,), (90, 100)])
WEIGHTS = st.sampled_from([0.0, 0.3, 1.0, -0.4, 0.75, 1.6])


def models(shape: Sequence[int], count: int, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(*shape, generator=generator)
    return [(common + 0.3 * torch.randn(*shape, generator=generator)).to(dtype) for _ in range(count)]


def derivatives(
    method: str,
    gradient: Tensor,
    inputs: Sequence[Tensor],
    base: int | None = None,
    per_model: dict[str, list[float | None]] | None = None,
    **own: Any,
) -> dict[ParameterSlot, float]:
    row = METHODS[method]
    values: dict[str, Any] = {}
    for parameter in row.parameters:
        if parameter.scope == "global":
            values[parameter.name] = None if isinstance(parameter.default, Required) else parameter.default
    assert row.derivative is not None
    statistics = [TaskVectorStatistics() for _ in inputs]
    arguments = MethodInputs(
        inputs, base, per_model or {}, values | own, lambda position: position + 1, statistics.__getitem__
    )
    return dict(row.derivative.run(arguments, gradient))


def slope(function: Callable[[float], Array], at: float, gradient: Tensor, step: float = 1e-5) -> float:
    """⟨G, (W(p + h) − W(p − h)) / 2h⟩."""
    difference = (function(at + step) - function(at - step)) / (2 * step)
    return float((double(gradient) * difference).sum())


def close(found: float, expected: float, scale: float) -> None:
    assert found == pytest.approx(expected, rel=2e-5, abs=2e-5 * scale)


def held(method: str, base: Array, others: list[Array], density: list[float], options: dict[str, Any]) -> list[Array]:
    """The sparsified and rescaled task vectors, from the definitions in the papers."""
    found = []
    for position, other in enumerate(others, start=1):
        delta = (other.astype(np.float32) - base.astype(np.float32)).astype(np.float64).reshape(-1)
        order = np.argsort(-np.abs(delta), kind="stable")
        mask = np.zeros(delta.size, dtype=bool)
        if method == "task_arithmetic" or density[position - 1] >= 1.0:
            mask[:] = True
        elif method == "breadcrumbs":
            kept = int(density[position - 1] * delta.size)
            dropped = min(int(options["gamma"] * delta.size), delta.size - kept)
            mask[order[dropped : dropped + kept]] = True
        else:
            limits = np.full(delta.size, np.ceil(density[position - 1] * 2**16))
            if method == "della_linear" and base.shape[-1] > 1:
                rows = np.abs(delta).reshape(-1, base.shape[-1])
                ranks = np.argsort(np.argsort(rows, axis=1, kind="stable"), axis=1).reshape(-1)
                slope = int(2 * options["epsilon"] * 2**32 / (base.shape[-1] - 1))  # rounded as a selection is
                limits += slope * ranks // 2**16 - int(options["epsilon"] * 2**16)
            mask = draws(position + 1, delta.size).numpy() < limits
        sparse = np.where(mask, delta, 0.0)
        if options["rescale"] and np.abs(sparse).sum() > 0:
            sparse = sparse * np.abs(delta).sum() / np.abs(sparse).sum()
        found.append(sparse.reshape(base.shape))
    return found


def merged(base: Array, vectors: list[Array], weights: list[float], scaling: float, normalize: bool) -> Array:
    terms = sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))
    share = sum(weights) if normalize and abs(sum(weights)) >= 1e-8 else 1.0
    return np.asarray(base + scaling * terms / share)


@pytest.mark.parametrize("method", TASK_VECTOR_METHODS)
@given(
    shape=SHAPES,
    weights=st.lists(WEIGHTS, min_size=1, max_size=4),
    density=st.sampled_from([0.35, 0.6, 1.0]),
    scaling=st.sampled_from([1.0, 0.6, -0.5]),
    normalize=st.booleans(),
    rescale=st.booleans(),
    seed=st.integers(0, 50),
)
@settings(max_examples=25, deadline=None)
def test_task_vector_methods_know_the_slope_of_every_weight_and_of_lambda(
    method: str,
    shape: tuple[int, ...],
    weights: list[float],
    density: float,
    scaling: float,
    normalize: bool,
    rescale: bool,
    seed: int,
):
    if normalize and abs(sum(weights)) < 0.05:
        return  # the slope is there, but too steep for differences
    base, *others = models(shape, len(weights) + 1, seed)
    gradient = torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1))
    options: dict[str, Any] = {"rescale": rescale, "gamma": 0.1, "epsilon": 0.2}
    per_model: dict[str, list[float | None]] = {"weight": [None, *weights], "density": [None] + [density] * len(others)}
    for name in ("gamma", "epsilon"):
        per_model[name] = [None] + [options[name]] * len(others)
    found = derivatives(
        method, gradient, [base, *others], 0, per_model, **{"lambda": scaling}, normalize=normalize, rescale=rescale
    )
    origin = double(base)
    vectors = held(method, origin, [double(other) for other in others], [density] * len(others), options)
    scale = max(float(np.abs(double(gradient) * vector).sum()) for vector in vectors)
    for position, weight in enumerate(weights):

        def with_weight(value: float, position: int = position) -> Array:
            changed = [value if index == position else other for index, other in enumerate(weights)]
            return merged(origin, vectors, changed, scaling, normalize)

        close(found[ParameterSlot("weight", position + 1)], slope(with_weight, weight, gradient), scale)

    def with_lambda(value: float) -> Array:
        return merged(origin, vectors, weights, value, normalize)

    close(found[ParameterSlot("lambda")], slope(with_lambda, scaling, gradient), scale)
    assert set(found) == {ParameterSlot("weight", 1 + place) for place in range(len(others))} | {
        ParameterSlot("lambda")
    }


def average(tensors: list[Array], weights: list[float], normalize: bool) -> Array:
    total = sum(weight * tensor for weight, tensor in zip(weights, tensors, strict=True))
    return np.asarray(total / sum(weights) if normalize else total)


@given(
    shape=SHAPES,
    weights=st.lists(WEIGHTS, min_size=1, max_size=4),
    normalize=st.booleans(),
    seed=st.integers(0, 50),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_linear_knows_the_slope_of_every_weight(
    shape: tuple[int, ...], weights: list[float], normalize: bool, seed: int, dtype: torch.dtype
):
    tensors = models(shape, len(weights), seed, dtype)
    gradient = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if normalize and abs(sum(weights)) < 0.05:
        if sum(weights) == 0.0:
            with pytest.raises(InvalidParametersError, match="sum to 0"):
                derivatives("linear", gradient, tensors, None, {"weight": list(weights)}, normalize=True)
        return
    found = derivatives("linear", gradient, tensors, None, {"weight": list(weights)}, normalize=normalize)
    exact = [double(tensor) for tensor in tensors]
    for position, weight in enumerate(weights):

        def with_weight(value: float, position: int = position) -> Array:
            changed = [value if index == position else other for index, other in enumerate(weights)]
            return average(exact, changed, normalize)

        close(
            found[ParameterSlot("weight", position)],
            slope(with_weight, weight, gradient),
            float(np.abs(double(gradient)).sum()),
        )


def along(start: Array, end: Array, t: float, axis: int | None, colinear: float = 1 - 1e-6) -> Array:
    """Slerp in float64, over the whole or along an axis."""

    def norm(values: Array) -> Any:
        return np.sqrt((values * values).sum(axis=axis, keepdims=True))

    cosine = (start * end).sum(axis=axis, keepdims=True) / (norm(start) * norm(end))
    angle = np.arccos(np.clip(cosine, -1, 1))
    chord, sine = np.abs(cosine) > colinear, np.sin(angle)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = np.sin((1 - t) * angle) / sine, np.sin(t * angle) / sine
    return np.asarray(np.where(chord, 1 - t, first) * start + np.where(chord, t, second) * end)


@given(
    shape=SHAPES,
    t=st.sampled_from([0.0, 0.2, 0.5, 1.0, 1.3]),
    near=st.sampled_from([1.0, 1e-3]),
    seed=st.integers(0, 50),
)
@settings(max_examples=40, deadline=None)
def test_slerp_knows_the_slope_of_its_position(shape: tuple[int, ...], t: float, near: float, seed: int):
    start, other = models(shape, 2, seed)
    end = start + near * (other - start)  # colinear where it is near
    gradient = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    found = derivatives("slerp", gradient, [start, end], 0, None, t=t)
    expected = slope(lambda value: along(double(start), double(end), value, None, 0.9995), t, gradient)
    close(found[ParameterSlot("t")], expected, float(np.abs(double(gradient) * double(start)).sum()))


@given(
    shape=SHAPES,
    weights=st.tuples(WEIGHTS, WEIGHTS),
    kind=st.sampled_from([{}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}]),
    with_base=st.booleans(),
    seed=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_nuslerp_knows_the_slope_of_both_weights(
    shape: tuple[int, ...], weights: tuple[float, float], kind: dict[str, bool], with_base: bool, seed: int
):
    if 0 < abs(sum(weights)) < 0.05:
        return
    base, first, second = models(shape, 3, seed)
    gradient = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    inputs = [base, first, second] if with_base else [first, second]
    per_model: dict[str, list[float | None]] = {"weight": [None, *weights] if with_base else list(weights)}
    found = derivatives("nuslerp", gradient, inputs, 0 if with_base else None, per_model, **kind)
    origin = double(base) if with_base else np.zeros(shape)
    axis: int | None = None
    if not kind.get("nuslerp_flatten", True) and len(shape) > 1:
        axis = 0 if kind.get("nuslerp_row_wise") else -1

    def at(one: float, two: float) -> Array:
        t = 0.5 if abs(one + two) < 1e-4 else two / (one + two)
        return origin + along(double(first) - origin, double(second) - origin, t, axis)

    scale = float(np.abs(double(gradient)).sum()) / max(abs(sum(weights)), 1.0) * 10
    positions = (1, 2) if with_base else (0, 1)
    by_first = slope(lambda value: at(value, weights[1]), weights[0], gradient)
    by_second = slope(lambda value: at(weights[0], value), weights[1], gradient)
    close(found[ParameterSlot("weight", positions[0])], by_first, scale)
    close(found[ParameterSlot("weight", positions[1])], by_second, scale)


def test_passthrough_knows_the_slope_of_its_scale():
    (tensor,) = models((12, 9), 1, 0)
    gradient = torch.randn(12, 9)
    found = derivatives("passthrough", gradient, [tensor], None, {"scale": [0.7]})
    expected = slope(lambda value: value * double(tensor), 0.7, gradient)
    close(found[ParameterSlot("scale", 0)], expected, 1.0)


@pytest.mark.parametrize("method", TASK_VECTOR_METHODS)
def test_any_number_of_threads_and_plain_torch_give_the_same_bits(method: str, monkeypatch: pytest.MonkeyPatch):
    inputs = models((300, 100), 4, 3, torch.bfloat16)
    gradient = torch.randn(300, 100)
    per_model: dict[str, list[float | None]] = {
        "weight": [None, 0.4, 0.0, -0.6],
        "density": [None, 0.4, 0.5, 0.6],
        "gamma": [None, 0.05, 0.05, 0.05],
        "epsilon": [None, 0.1, 0.1, 0.1],
    }
    monkeypatch.setattr(compiled, "SPAN", 8192)
    results = []
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        results.append(derivatives(method, gradient, inputs, 0, per_model))
        torch.set_num_threads(before)
    strided = gradient.t().contiguous().t()
    results.append(derivatives(method, strided, inputs, 0, per_model))
    monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    results.append(derivatives(method, gradient, inputs, 0, per_model))
    assert all(result == results[0] for result in results)


def test_a_method_says_which_of_its_parameters_are_differentiable():
    assert METHODS["dare_linear"].by_formula == ("weight", "lambda")
    assert METHODS["dare_linear"].differentiable == ("weight", "lambda", "density")
    assert METHODS["ties"].by_formula == ()
    assert METHODS["ties"].differentiable == ("weight", "density", "lambda")
    assert METHODS["slerp"].differentiable == ("t",)
    assert METHODS["sce"].differentiable == ("select_topk",)
    assert METHODS["karcher"].differentiable == ()
    for row in METHODS.values():
        assert all(row.by_name[name].kind == "number" for name in row.differentiable)
