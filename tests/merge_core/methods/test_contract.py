"""Every method obeys its laws and agrees with an independent float64 computation of its equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from method_runs import EVERY, Array, close, double, run
from scipy import stats
from torch import Tensor

from merge_core import METHODS
from merge_core.kernels.random_numbers import draws as drawn
from merge_core.kernels.summation import stable_norm
from merge_core.methods import hypersphere
from merge_core.methods.method import InvalidParametersError

ROWS, COLUMNS = 12, 16


def tensors(count: int, seed: int = 0, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(shape, generator=generator)
    return [common + 0.3 * torch.randn(shape, generator=generator) for _ in range(count)]


def draws(position: int) -> Tensor:
    return drawn(position + 1, ROWS * COLUMNS).view(ROWS, COLUMNS) * 2.0**-16


WEIGHTS: dict[str, list[float | None]] = {"weight": [None, 0.7, 0.5, -0.4]}


# Laws that hold for all methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "per_model", "settings"), EVERY)
def test_equal_models_return_themselves(
    method: str, per_model: dict[str, list[float | None]], settings: dict[str, Any]
):
    (tensor,) = tensors(1)
    base = None if METHODS[method].base in ("unused", "optional") else 0
    inputs = [tensor, tensor.clone()]
    if method == "model_stock":
        inputs.append(tensor.clone())
    close(run(method, inputs, base, per_model, **settings), double(tensor))


@pytest.mark.parametrize(
    "method", [name for name, row in METHODS.items() if "weight" in row.by_name and name != "multislerp"]
)
def test_a_model_of_weight_one_beside_others_of_none_comes_out_as_it_is_where_all_of_it_is_kept(method: str):
    inputs = tensors(2 if METHODS[method].base == "unused" or METHODS[method].maximum_models == 2 else 3)
    base = 0 if METHODS[method].base == "required" else None
    weights = [None, 1.0, 0.0] if base == 0 else [0.0, 1.0]
    kept = {"density": [None, 1.0, 0.4], "gamma": [None, 0.0, 0.1], "epsilon": [None, 0.1, 0.1]}
    close(run(method, inputs, base, {"weight": weights, **kept}), double(inputs[1]))


# Whole-model averages and interpolations --------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
def test_linear_is_the_weighted_average(normalize: bool):
    inputs, weights = tensors(3), [0.2, 1.5, -0.4]
    expected = sum(weight * double(tensor) for weight, tensor in zip(weights, inputs, strict=True))
    close(
        run("linear", inputs, None, {"weight": list(weights)}, normalize=normalize),
        expected / (1.3 if normalize else 1),
    )


def test_linear_with_weights_that_cancel_says_so():
    with pytest.raises(InvalidParametersError, match="sum to 0"):
        run("linear", tensors(2), None, {"weight": [1.0, -1.0]})


def slerp_oracle(start: Array, end: Array, t: float) -> Array:
    cosine = (start * end).sum() / np.linalg.norm(start) / np.linalg.norm(end)
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)


@pytest.mark.parametrize("t", [-0.2, 0.0, 0.3, 1.0, 1.2])
def test_slerp_follows_the_great_circle(t: float):
    start, end = tensors(2)
    close(run("slerp", [start, end], 0, t=t), slerp_oracle(double(start), double(end), t))
    close(run("slerp", [end, start], 1, t=t), slerp_oracle(double(start), double(end), t))


def test_slerp_of_unit_tensors_keeps_the_norm_and_returns_its_ends():
    start, end = (tensor / tensor.norm() for tensor in tensors(2))
    assert run("slerp", [start, end], 0, t=0.37).norm().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(run("slerp", [start, end], 0, t=0.0), start)
    torch.testing.assert_close(run("slerp", [start, end], 0, t=1.0), end)


def test_nearly_colinear_tensors_are_interpolated_linearly():
    (start,) = tensors(1)
    end = start * 3 + 1e-4
    close(run("slerp", [start, end], 0, t=0.25), 0.75 * double(start) + 0.25 * double(end))


@pytest.mark.parametrize("base", [None, 2])
def test_nuslerp_is_slerp_at_the_share_of_the_second_weight(base: int | None):
    inputs = tensors(3 if base else 2)
    offset = double(inputs[2]) if base else 0.0
    expected = slerp_oracle(double(inputs[0]) - offset, double(inputs[1]) - offset, 0.75) + offset
    weights: list[float | None] = [0.3, 0.9, None][: len(inputs)]
    close(run("nuslerp", inputs, base, {"weight": weights}), expected)


def test_nuslerp_takes_the_middle_when_weights_cancel():
    first, second = tensors(2)
    close(
        run("nuslerp", [first, second], None, {"weight": [1.0, -1.0]}), slerp_oracle(double(first), double(second), 0.5)
    )


@pytest.mark.parametrize("row_wise", [False, True])
def test_nuslerp_without_flatten_has_an_angle_per_row_or_column(row_wise: bool):
    first, second = tensors(2)
    pairs = zip(first.T, second.T, strict=True) if row_wise else zip(first, second, strict=True)
    lines = [slerp_oracle(double(one), double(two), 0.75) for one, two in pairs]
    result = run(
        "nuslerp", [first, second], None, {"weight": [0.3, 0.9]}, nuslerp_flatten=False, nuslerp_row_wise=row_wise
    )
    close(result, np.stack(lines, axis=1 if row_wise else 0))


@pytest.mark.parametrize("base", [None, 3])
def test_multislerp_has_the_mean_direction_and_the_mean_norm(base: int | None):
    inputs = tensors(4 if base else 3)
    offset = double(inputs[3]) if base else 0.0
    vectors = [double(tensor) - offset for tensor in inputs[:3]]
    weights = np.array([0.3, 0.9, 0.4]) / 1.6
    norms = [float(np.linalg.norm(vector)) for vector in vectors]
    direction = sum(w * v / n for w, v, n in zip(weights, vectors, norms, strict=True))
    expected = direction / np.linalg.norm(direction) * float(weights @ np.array(norms)) + offset
    per_model: dict[str, list[float | None]] = {"weight": [0.3, 0.9, 0.4, None][: len(inputs)]}
    close(run("multislerp", inputs, base, per_model), expected)


def test_multislerp_of_opposite_directions_is_their_average():
    (tensor,) = tensors(1)
    assert run("multislerp", [tensor, -tensor], None, {"weight": [1.0, 1.0]}).abs().max() == 0


def test_the_karcher_mean_is_where_the_log_maps_cancel():
    inputs = tensors(3)
    result = double(run("karcher", inputs, None, max_iter=100, tol=1e-7))
    norms = [np.linalg.norm(double(tensor)) for tensor in inputs]
    assert np.linalg.norm(result) == pytest.approx(np.mean(norms), rel=1e-6)
    mean = result / np.linalg.norm(result)
    tangents = []
    for tensor, norm in zip(inputs, norms, strict=True):
        unit = double(tensor) / norm
        cosine = (unit * mean).sum()
        tangents.append(np.arccos(cosine) / np.sqrt(1 - cosine**2) * (unit - cosine * mean))
    assert np.abs(np.sum(tangents, axis=0)).max() < 1e-6


def test_the_karcher_mean_ends_when_rounding_is_all_that_moves_it(monkeypatch: pytest.MonkeyPatch):
    inputs = tensors(3)
    steps: list[float] = []

    def counted(tensor: Tensor) -> float:
        steps.append(stable_norm(tensor))
        return steps[-1]

    monkeypatch.setattr(hypersphere, "stable_norm", counted)
    without_end = run("karcher", inputs, None, max_iter=9999, tol=0.0)
    assert len(steps) < 100
    torch.testing.assert_close(without_end, run("karcher", inputs, None, max_iter=100, tol=1e-7))


def test_passthrough_keeps_every_bit_and_scales_when_asked():
    (tensor,) = tensors(1)
    assert torch.equal(run("passthrough", [tensor]), tensor)
    assert torch.equal(run("passthrough", [tensor], None, {"scale": [0.5]}), tensor * 0.5)


# Task vectors -----------------------------------------------------------------------------------------------------


def trim(delta: Array, density: float) -> Array:
    kept = int(density * delta.size)
    order = np.argsort(-np.abs(delta), axis=None)
    mask = np.zeros(delta.size, dtype=bool)
    mask[order[:kept]] = True
    return delta * mask.reshape(delta.shape)


def crumbs(delta: Array, density: float, gamma: float) -> Array:
    outliers = np.argsort(-np.abs(delta), axis=None)[: int(gamma * delta.size)]
    rest = delta.copy().reshape(-1)
    rest[outliers] = 0
    return trim(rest.reshape(delta.shape), density)


def dare(delta: Array, density: float, position: int) -> Array:
    return delta * (double(draws(position)) < density)


def prune_by_rank(delta: Array, density: float, epsilon: float, position: int) -> Array:
    ranks = stats.rankdata(np.abs(delta), axis=1) - 1
    probability = density - epsilon + 2 * epsilon * ranks / (delta.shape[1] - 1)
    return delta * (double(draws(position)) < probability)


def combine(
    base: Array, deltas: list[Array], sparse: list[Array], elect: bool, normalize: bool, rescale: bool, scaling: float
) -> Array:
    weights = [0.7, 0.5, -0.4]
    if rescale:
        sparse = [s * np.abs(d).sum() / np.abs(s).sum() for s, d in zip(sparse, deltas, strict=True)]
    terms = np.stack([weight * one for weight, one in zip(weights, sparse, strict=True)])
    share = np.array(weights)[:, None, None] * np.ones_like(terms)
    if elect:
        sign = np.where(terms.sum(0) >= 0, 1.0, -1.0)
        agrees = np.sign(terms) == sign
        terms, share = terms * agrees, share * agrees
    total = share.sum(0)
    divisor = np.where(np.abs(total) < 1e-8, 1.0, total) if normalize else 1.0
    return base + scaling * terms.sum(0) / divisor


DENSITIES = [0.6, 0.3, 0.9]
SPARSIFIERS: dict[str, Callable[[Array, int], Array]] = {
    "task_arithmetic": lambda delta, i: delta,
    "ties": lambda delta, i: trim(delta, DENSITIES[i - 1]),
    "dare": lambda delta, i: dare(delta, DENSITIES[i - 1], i),
    "breadcrumbs": lambda delta, i: crumbs(delta, DENSITIES[i - 1], 0.05),
    "della": lambda delta, i: prune_by_rank(delta, DENSITIES[i - 1], 0.05, i),
}


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("method", "sparsifier", "elect"),
    [
        ("task_arithmetic", "task_arithmetic", False),
        ("ties", "ties", True),
        ("dare_ties", "dare", True),
        ("dare_linear", "dare", False),
        ("breadcrumbs", "breadcrumbs", False),
        ("breadcrumbs_ties", "breadcrumbs", True),
        ("della", "della", True),
        ("della_linear", "della", False),
    ],
)
def test_task_vector_methods_agree_with_float64(
    method: str, sparsifier: str, elect: bool, normalize: bool, rescale: bool
):
    inputs = tensors(4)
    per_model = {
        **WEIGHTS,
        "density": [None, *DENSITIES],
        "gamma": [None] + [0.05] * 3,
        "epsilon": [None] + [0.05] * 3,
    }
    result = run(method, inputs, 0, per_model, normalize=normalize, rescale=rescale, **{"lambda": 0.8})
    # The masks are made from float32 differences; so are the oracle's.
    deltas = [double(tensor - inputs[0]) for tensor in inputs[1:]]
    sparse = [SPARSIFIERS[sparsifier](delta, index) for index, delta in enumerate(deltas, start=1)]
    close(result, combine(double(inputs[0]), deltas, sparse, elect, normalize, rescale, 0.8), 1e-5)


def test_scaling_all_weights_scales_the_task_vector():
    base, other = tensors(2)
    once = run("ties", [base, other], 0, {"weight": [None, 1.0], "density": [None, 0.5]}, normalize=False)
    twice = run("ties", [base, other], 0, {"weight": [None, 2.0], "density": [None, 0.5]}, normalize=False)
    torch.testing.assert_close(twice - base, 2 * (once - base))


DROPPING = ["ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear"]


@pytest.mark.parametrize("method", DROPPING)
def test_density_zero_returns_the_base(method: str):
    base, other = tensors(2)
    result = run(method, [base, other], 0, {"weight": [None, 1.0], "density": [None, 0.0], "epsilon": [None, 0.15]})
    assert torch.equal(result, base)


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_della_of_density_one_drops_nothing_whatever_epsilon(method: str):
    base, other = tensors(2)
    result = run(method, [base, other], 0, {"weight": [None, 1.0], "density": [None, 1.0], "epsilon": [None, 0.15]})
    torch.testing.assert_close(result, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3])
def test_ties_keeps_an_entry_of_the_smallest_tensor_at_any_density_above_zero(size: int):
    base, other = torch.zeros(size), torch.arange(1.0, size + 1)
    result = run("ties", [base, other], 0, {"weight": [None, 1.0], "density": [None, 1e-7]})
    assert result.tolist() == [0.0] * (size - 1) + [float(size)]


@pytest.mark.parametrize(("density", "epsilon"), [(0.9, 0.15), (0.1, 0.1), (0.99, 0.02)])
def test_della_refuses_probabilities_outside_zero_to_one(density: float, epsilon: float):
    per_model: dict[str, list[float | None]] = {
        "weight": [None, 1.0],
        "density": [None, density],
        "epsilon": [None, epsilon],
    }
    with pytest.raises(InvalidParametersError, match="between 0 and 1"):
        run("della", tensors(2), 0, per_model)


# The others -------------------------------------------------------------------------------------------------------


def cosine(one: Array, two: Array) -> float:
    return float((one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two))


@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_weighs_the_mean_by_the_cosine(filter_wise: bool):
    inputs = tensors(4)
    base, others = double(inputs[0]), [double(tensor) for tensor in inputs[1:]]
    rows = [slice(row, row + 1) for row in range(ROWS)] if filter_wise else [slice(None)]
    expected = np.empty_like(base)
    for row in rows:
        deltas = [other[row] - base[row] for other in others]
        c = np.mean([cosine(deltas[0], deltas[1]), cosine(deltas[0], deltas[2]), cosine(deltas[1], deltas[2])])
        t = 3 * c / (1 + 2 * c)
        expected[row] = t * np.mean([other[row] for other in others], axis=0) + (1 - t) * base[row]
    close(run("model_stock", inputs, 0, filter_wise=filter_wise), expected, 1e-5)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_sce_selects_calculates_and_erases(share: float):
    inputs = tensors(4)
    deltas = np.stack([double(tensor - inputs[0]) for tensor in inputs[1:]])
    variance = deltas.var(axis=0)
    kept = np.argsort(-variance, axis=None)[: int(share * variance.size)]
    mask = np.zeros(variance.size, dtype=bool)
    mask[kept] = True
    deltas = deltas * mask.reshape(variance.shape)
    weights = (deltas**2).mean(axis=(1, 2), keepdims=True)
    weights = weights / weights.sum()
    agrees = np.sign(deltas) == np.where(deltas.sum(0) >= 0, 1, -1)
    divisor = (weights * agrees).sum(0)
    expected = (weights * deltas * agrees).sum(0) / np.where(divisor < 1e-8, 1, divisor)
    close(run("sce", inputs, 0, select_topk=share), double(inputs[0]) + expected, 1e-5)


def test_sce_of_one_model_selects_nothing_because_nothing_varies():
    base, other = tensors(2)
    assert torch.equal(run("sce", [base, other], 0, select_topk=0.5), base)
    torch.testing.assert_close(run("sce", [base, other], 0, select_topk=1.0), other)


def test_nearswap_moves_by_at_most_t():
    base, other = tensors(2)
    difference = double(other) - double(base)
    share = np.clip(0.1 / np.abs(difference), 0, 1)
    close(run("nearswap", [base, other], 0, t=0.1), double(base) + share * difference)
    assert torch.equal(run("nearswap", [base, other], 0, t=0.0), base)


def test_arcee_fusion_tells_rows_that_hardly_differ():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(64, 4096, generator=generator) * 0.02
    other = base + torch.randn(64, 4096, generator=generator) * 5e-4
    b, o = double(base), double(other)
    log_b, log_o = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (b, o))
    importance = np.abs(o - b) * (np.exp(log_o) * (log_o - log_b)).sum(-1, keepdims=True)
    low, median, high = np.quantile(importance, (0.25, 0.5, 0.75))
    taken = importance >= median + 1.5 * (high - low)
    found = double(run("arcee_fusion", [base, other], 0)) == o
    assert 0.01 < taken.mean() < 0.2
    assert (found != taken).mean() < 1e-4


def test_arcee_fusion_takes_only_what_stands_out():
    base, other = tensors(2)
    log_base, log_other = (double(torch.log_softmax(tensor.double(), -1)) for tensor in (base, other))
    divergence = (np.exp(log_other) * (log_other - log_base)).sum(-1, keepdims=True)
    importance = np.abs(double(other) - double(base)) * divergence
    low, median, high = np.quantile(importance, [0.25, 0.5, 0.75], method="lower")
    expected = np.where(importance >= median + 1.5 * (high - low), double(other), double(base))
    assert 0 < (expected != double(base)).mean() < 0.3
    close(run("arcee_fusion", [base, other], 0), expected, 0)


@pytest.mark.parametrize("method", ["ram", "ramplus_tl"])
def test_ram_adds_unique_changes_whole_and_averages_shared_ones(method: str):
    inputs = tensors(4)
    epsilon, gain, ceiling = 0.3, 0.5, 0.4
    deltas = np.stack([double(tensor - inputs[0]) for tensor in inputs[1:]])
    changed = np.abs(deltas) > epsilon
    expected = double(inputs[0]).copy()
    for row in range(ROWS):
        for column in range(COLUMNS):
            who = np.flatnonzero(changed[:, row, column])
            if len(who) == 1:
                unique = (changed[who[0]] & (changed.sum(0) == 1)).sum()
                shared = (changed[who[0]] & (changed.sum(0) > 1)).sum()
                factor = 1 + gain * np.clip(shared / unique, 0, ceiling) if method == "ramplus_tl" else 1
                expected[row, column] += factor * deltas[who[0], row, column]
            elif len(who) > 1:
                expected[row, column] += deltas[who, row, column].mean()
    settings = {"epsilon": epsilon} | ({"r": gain, "alpha": ceiling} if method == "ramplus_tl" else {})
    close(run(method, inputs, 0, **settings), expected)
