"""Derivatives of merge methods by differences, against differences of a merge in float64 by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_runs import Array, double
from torch import Tensor

from merge_core.kernels import compiled, dispatch, eager
from merge_core.kernels.dispatch import NotFiniteError
from merge_core.kernels.order_statistics import TaskVectorStatistics
from merge_core.methods import METHODS, MethodInputs, ParameterSlot
from merge_core.methods.differences import STEP, slopes_by_difference
from merge_core.methods.method import Method, Required


def models(count: int, shape: Sequence[int] = (40, 30), seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(*shape, generator=generator)
    return [common + 0.3 * torch.randn(*shape, generator=generator) for _ in range(count)]


def slope_by_difference(method: Method, given_inputs: MethodInputs, gradient: Tensor, slot: ParameterSlot) -> float:
    return slopes_by_difference(method, given_inputs, gradient, [slot])[slot]


def inputs_of(method: str, tensors: Sequence[Tensor], base: int | None, **given: Any) -> MethodInputs:
    """With the values given, of the others the defaults, or the middle of their range."""
    per_model: dict[str, list[Any]] = {}
    shared: dict[str, Any] = {}
    for parameter in METHODS[method].parameters:
        known = None if isinstance(parameter.default, Required) else parameter.default
        if known is None and parameter.search is not None:
            known = (parameter.search.low + parameter.search.high) / 2
        value = given.get(parameter.name, known)
        if parameter.scope == "global":
            shared[parameter.name] = value
        else:
            own = value if isinstance(value, list) else [value] * len(tensors)
            per_model[parameter.name] = [None if place == base else one for place, one in enumerate(own)]
    statistics = [TaskVectorStatistics() for _ in tensors]
    return MethodInputs(tensors, base, per_model, shared, lambda position: position + 1, statistics.__getitem__)


def ties(
    base: Array, others: Sequence[Array], weights: Sequence[float], densities: Sequence[float], **own: Any
) -> Array:
    """Trim, elect, merge (Yadav et al. 2023, section 4)."""
    terms, shares = [], []
    for other, weight, density in zip(others, weights, densities, strict=True):
        delta = (other - base).reshape(-1)
        kept = np.argsort(-np.abs(delta), kind="stable")[: int(density * delta.size)]
        trimmed = np.zeros_like(delta)
        trimmed[kept] = delta[kept]
        terms.append(weight * trimmed)
        shares.append(weight)
    total = np.sum(terms, axis=0)
    agree = [np.where(total >= 0, term > 0, term < 0) for term in terms]
    chosen = np.sum([term * each for term, each in zip(terms, agree, strict=True)], axis=0)
    if own["normalize"]:
        divisor = np.sum([share * each for share, each in zip(shares, agree, strict=True)], axis=0)
        chosen = chosen / np.where(np.abs(divisor) >= 1e-8, divisor, 1.0)
    return np.asarray(base + own["scaling"] * chosen.reshape(base.shape))


@given(
    weights=st.tuples(*[st.sampled_from([0.15, 0.4, 1.0, -0.3])] * 3),
    densities=st.tuples(*[st.sampled_from([0.35, 0.6, 0.9])] * 3),
    scaling=st.sampled_from([1.0, 0.6]),
    normalize=st.booleans(),
    seed=st.integers(0, 30),
)
@settings(max_examples=25, deadline=None)
def test_of_ties_every_number_has_the_slope_of_its_trimmed_and_elected_merges(
    weights: tuple[float, ...], densities: tuple[float, ...], scaling: float, normalize: bool, seed: int
):
    base, *others = models(4, seed=seed)
    gradient = torch.randn(base.shape, generator=torch.Generator().manual_seed(seed))
    given_inputs = inputs_of(
        "ties",
        [base, *others],
        0,
        weight=[None, *weights],
        density=[None, *densities],
        normalize=normalize,
        **{"lambda": scaling},
    )

    def by_hand(name: str, position: int | None, value: float) -> Array:
        own: dict[str, Any] = {"weight": list(weights), "density": list(densities)}
        if position is not None:
            own[name][position - 1] = value
        return ties(
            double(base),
            [double(other) for other in others],
            own["weight"],
            own["density"],
            scaling=value if name == "lambda" else scaling,
            normalize=normalize,
        )

    scale = float(np.abs(double(gradient)).sum())
    for name, position, value, width in (
        ("weight", 2, weights[1], 1.0),
        ("density", 3, densities[2], 0.9),
        ("lambda", None, scaling, 1.2),
    ):
        step = STEP * width
        difference = by_hand(name, position, value + step) - by_hand(name, position, value)
        found = slope_by_difference(METHODS["ties"], given_inputs, gradient, ParameterSlot(name, position))
        expected = float((double(gradient) * difference).sum()) / step
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6 * scale)


@pytest.mark.parametrize(
    "method", ["task_arithmetic", "dare_linear", "breadcrumbs", "della_linear", "linear", "nuslerp"]
)
def test_where_a_formula_is_known_the_difference_tells_the_same(method: str):
    row, base = METHODS[method], 0 if METHODS[method].base == "required" else None
    tensors = models(3 if base == 0 else 2)
    gradient = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(3))
    given_inputs = inputs_of(method, tensors, base, weight=[0.4, 0.3, 0.6][: len(tensors)], density=0.6)
    assert row.derivative is not None
    for slot, expected in row.derivative.run(given_inputs, gradient).items():
        found = slope_by_difference(row, given_inputs, gradient, slot)
        curves = method in ("linear", "nuslerp")  # which divide by the weights
        assert found == pytest.approx(expected, rel=0.05 if curves else 2e-3, abs=1e-2)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("method", [row.name for row in METHODS.values() if row.differences is not None])
def test_all_at_once_the_slopes_are_those_of_a_merge_for_each(method: str, rescale: bool, normalize: bool):
    row = METHODS[method]
    tensors = [tensor.bfloat16() for tensor in models(5, (70, 90), 4)]
    # Weights whose multiples are not: where a sum is 0 but for rounding, its sign depends on the order of adding.
    own: dict[str, Any] = {"weight": [None, 0.417, 0.0, -0.639, 0.331], "density": [None, 0.4, 0.5, 0.6, 0.999]}
    own |= {"epsilon": [None, 0.1, 0.2, 0.15, 0.0005], "lambda": 0.7, "normalize": normalize, "rescale": rescale}
    given_inputs = inputs_of(method, tensors, 0, **own)
    slots = [
        ParameterSlot(name, position)
        for name in row.differentiable
        for position in (range(1, 5) if row.by_name[name].scope == "model" else (None,))
    ]
    gradient = torch.randn(70, 90, generator=torch.Generator().manual_seed(9))
    found = slopes_by_difference(row, given_inputs, gradient, slots)
    expected = slopes_by_difference(replace(row, differences=None), given_inputs, gradient, slots)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5 * float(gradient.abs().sum()))
    # The second has no weight, and the last one's density hardly keeps more.
    assert all(value for slot, value in found.items() if slot.position in (None, 1, 3))


@pytest.mark.parametrize(
    ("method", "name"),
    [(row.name, name) for row in METHODS.values() for name in row.differentiable if name not in row.by_formula],
)
def test_every_number_with_a_range_has_a_slope(method: str, name: str):
    row = METHODS[method]
    base = None if row.base == "unused" else 0
    tensors = models(row.maximum_models + 1 if row.maximum_models else 4, seed=2)
    own = {"weight": [0.2, 0.3, 0.5, 0.4][: len(tensors)], "density": 0.5, "epsilon": 0.1}
    if method == "nearswap":
        own["t"] = 0.1
    position = None if row.by_name[name].scope == "global" else 1
    gradient = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(0))
    slope = slope_by_difference(row, inputs_of(method, tensors, base, **own), gradient, ParameterSlot(name, position))
    assert np.isfinite(slope)
    assert slope != 0.0


def test_at_the_end_of_its_meaning_a_number_is_differentiated_to_one_side():
    base, other = models(2)
    gradient = other - base  # along which every entry that is kept adds
    given_inputs = inputs_of("ties", [base, other], 0, weight=1.0, density=1.0)
    slope = slope_by_difference(METHODS["ties"], given_inputs, gradient, ParameterSlot("density", 1))
    below = inputs_of("ties", [base, other], 0, weight=1.0, density=1.0 - 0.9 * STEP)
    lost = METHODS["ties"].run(given_inputs) - METHODS["ties"].run(below)
    assert slope == pytest.approx(float((gradient * lost).double().sum()) / (0.9 * STEP), rel=1e-3)
    assert slope > 0


def test_where_the_other_side_goes_with_nothing_else_one_side_tells():
    base, other = models(2)
    given_inputs = inputs_of("della", [base, other], 0, weight=1.0, density=0.5, epsilon=0.4999)
    slope = slope_by_difference(METHODS["della"], given_inputs, torch.ones_like(base), ParameterSlot("epsilon", 1))
    assert np.isfinite(slope)


def test_a_merge_that_is_not_finite_is_told():
    base, other = models(2)
    other[0, 0] = torch.inf
    given_inputs = inputs_of("ties", [base, other], 0, weight=1.0, density=1.0)
    with pytest.raises(NotFiniteError):
        slope_by_difference(METHODS["ties"], given_inputs, torch.ones_like(base), ParameterSlot("weight", 1))


@pytest.mark.parametrize("method", [row.name for row in METHODS.values() if row.elects])
def test_any_number_of_threads_and_plain_torch_give_the_same_bits(method: str, monkeypatch: pytest.MonkeyPatch):
    tensors = [tensor.bfloat16() for tensor in models(4, (300, 100), 3)]
    gradient = torch.randn(300, 100)
    monkeypatch.setattr(compiled, "SPAN", 8192)

    def slopes() -> list[float]:
        given_inputs = inputs_of(
            method, tensors, 0, weight=[None, 0.4, 0.1, -0.6], density=[None, 0.4, 0.5, 0.6], epsilon=0.1
        )
        slots = [ParameterSlot("weight", 2), ParameterSlot("density", 3), ParameterSlot("lambda")]
        return [slope_by_difference(METHODS[method], given_inputs, gradient, slot) for slot in slots]

    results = []
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        results.append(slopes())
        torch.set_num_threads(before)
    monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    assert all(result == slopes() for result in results)
