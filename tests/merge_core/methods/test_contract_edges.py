"""Every method at its edges: odd shapes, one model, nothing to add, all or nothing kept, values that are not finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_runs import EVERY, close, double, run
from safetensors.torch import load_file, save_file

from merge_core import METHODS, Checkpoint, LiveMerge, MergeError, Recipe, merge

SHAPES = [(1, 16), (16, 1), (16,), (1, 1), (1,), (3, 4, 5), (0, 16), (16, 0), (0,), ()]
Case = tuple[str, dict[str, list[float | None]], dict[str, Any]]


def base_of(method: str) -> int | None:
    return 0 if METHODS[method].base == "required" else None


def others_of(method: str) -> int:
    """How many models besides the base a test gives a method: the fewest."""
    row = METHODS[method]
    return max(row.minimum_models, 1) if base_of(method) == 0 else max(row.minimum_models, 2)


def per_model_of(case: Case, count: int) -> dict[str, list[float | None]]:
    return {name: [*values, *[values[-1]] * count][:count] for name, values in case[1].items()}


def inputs_of(method: str, shape: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(shape, generator=generator)
    count = others_of(method) + (base_of(method) == 0)
    return [common + 0.3 * torch.randn(shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", EVERY, ids=lambda case: f"{case[0]}-{case[2]}")
def test_tensors_of_any_shape_are_merged_and_equal_ones_return_themselves(case: Case, shape: tuple[int, ...]):
    method, _, settings = case
    inputs = inputs_of(method, shape)
    per_model = per_model_of(case, len(inputs))
    assert torch.isfinite(run(method, inputs, base_of(method), per_model, **settings)).all()
    equal = [inputs[0].clone() for _ in inputs]
    close(run(method, equal, base_of(method), per_model, **settings), double(inputs[0]))


@pytest.mark.parametrize("case", EVERY, ids=lambda case: f"{case[0]}-{case[2]}")
def test_tensors_of_zeros_are_merged(case: Case):
    method, _, settings = case
    inputs = [torch.zeros_like(tensor) for tensor in inputs_of(method, (4, 8))]
    assert torch.equal(run(method, inputs, base_of(method), per_model_of(case, len(inputs)), **settings), inputs[0])


ONE_MODEL = ["task_arithmetic", "ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties", "ram", "sce"]


@pytest.mark.parametrize("method", ONE_MODEL)
def test_one_model_of_weight_one_and_density_one_returns_itself(method: str):
    base, other = inputs_of("ties", (6, 8))
    result = run(method, [base, other], 0, {"weight": [None, 1.0], "density": [None, 1.0], "gamma": [None, 0.0]})
    close(result, double(other))


@pytest.mark.parametrize("method", ["linear", "karcher", "multislerp"])
def test_one_model_without_base_returns_itself(method: str):
    (tensor, _) = inputs_of("linear", (6, 8))
    close(run(method, [tensor], None, {"weight": [0.3]}), double(tensor))


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize(
    ("density", "gamma"), [(1.0, 0.9), (1.0, 0.01), (0.5, 1e-9), (1e-9, 0.5), (0.0, 1.0), (0.5, 1.0)]
)
def test_breadcrumbs_keep_as_many_entries_as_the_density_says(method: str, density: float, gamma: float):
    base, other = inputs_of("ties", (6, 8))
    per_model: dict[str, list[float | None]] = {
        "weight": [None, 1.0],
        "density": [None, density],
        "gamma": [None, gamma],
    }
    moved = run(method, [base, other], 0, per_model) != base
    assert int(moved.sum()) == math.floor(density * 48)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties"])
def test_density_one_is_the_method_without_dropping(method: str):
    inputs = inputs_of("model_stock", (6, 8))
    weights: list[float | None] = [None, 0.7, 0.4]
    dense = run(
        method,
        inputs,
        0,
        {"weight": weights, "density": [None, 1.0, 1.0], "gamma": [None, 0.0, 0.0]},
        normalize=False,
    )
    if method.endswith("ties"):
        expected = run("ties", inputs, 0, {"weight": weights, "density": [None, 1.0, 1.0]}, normalize=False)
    else:
        expected = run("task_arithmetic", inputs, 0, {"weight": weights})
    close(dense, double(expected))


@pytest.mark.parametrize("filter_wise", [False, True])
def test_model_stock_of_opposite_task_vectors_is_the_base(filter_wise: bool):
    base = torch.zeros(3, 8)
    (delta, _) = inputs_of("linear", (3, 8))
    assert torch.equal(run("model_stock", [base, delta, -delta], 0, filter_wise=filter_wise), base)


# Directions that nearly agree or oppose ---------------------------------------------------------------------------


def turned(start: torch.Tensor, angle: float, seed: int = 3) -> torch.Tensor:
    """A tensor at an angle of ``start``, rounded to float32."""
    direction = double(start) / np.linalg.norm(double(start))
    across = np.random.default_rng(seed).standard_normal(direction.shape)
    across -= (across * direction).sum() * direction
    across /= np.linalg.norm(across)
    return torch.from_numpy(2.5 * (math.cos(angle) * direction + math.sin(angle) * across)).float()


def arc(start: torch.Tensor, end: torch.Tensor, t: float, colinear: float) -> Any:
    """The great circle in extended precision, the angle from both of its sides, so that no digit cancels."""
    one, two = (double(tensor).astype(np.longdouble) for tensor in (start, end))
    first, second = one / np.sqrt((one**2).sum()), two / np.sqrt((two**2).sum())
    if abs((first * second).sum()) > colinear:
        return (1 - t) * one + t * two
    angle = 2 * np.arctan2(np.sqrt(((first - second) ** 2).sum()), np.sqrt(((first + second) ** 2).sum()))
    return (np.sin((1 - t) * angle) * one + np.sin(t * angle) * two) / np.sin(angle)


def nuslerp(start: torch.Tensor, end: torch.Tensor, t: float, method: str) -> torch.Tensor:
    """By `nuslerp`; by row or by column the tensors are one of many, whose angles have nothing to do with theirs."""
    weights: dict[str, list[float | None]] = {"weight": [1 - t, t]}
    if method == "nuslerp":
        return run("nuslerp", [start, end], None, weights)
    many = [
        torch.stack([torch.ones(start.numel()), tensor.flatten(), tensor.flatten() ** 2]) for tensor in (start, end)
    ]
    by_row = method == "nuslerp by row"
    many = many if by_row else [tensor.T.contiguous() for tensor in many]
    result = run("nuslerp", many, None, weights, nuslerp_flatten=False, nuslerp_row_wise=not by_row)
    return (result if by_row else result.T)[1].reshape(start.shape)


NEAR = [0.0, 1e-12, 1e-7, 1e-4, 1e-3, 0.0013, 0.0015, 0.01, 0.0316, 0.0317, 0.05, 1.0]


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("angle", NEAR)
@pytest.mark.parametrize("method", ["slerp", "nuslerp", "nuslerp by row", "nuslerp by column"])
def test_interpolation_is_exact_where_directions_nearly_agree_or_oppose(method: str, angle: float, opposite: bool):
    (start, _) = inputs_of("slerp", (12, 16))
    end = turned(start, math.pi - angle if opposite else angle)
    for t in (0.0, 0.2, 0.5, 1.0):
        if method == "slerp":
            result, expected = run("slerp", [start, end], 0, t=t), arc(start, end, t, 0.9995)
        else:
            result, expected = nuslerp(start, end, t, method), arc(start, end, t, 1 - 1e-6)
        # What remains is the rounding of the result to float32, and of the angle to float64.
        size = np.abs(double(start)) + np.abs(double(end)) + np.abs(expected)
        assert (np.abs(double(result) - expected) <= 2.0**-23 * size).all()


# Values that are not finite ---------------------------------------------------------------------------------------

BROKEN = "model.layers.1.mlp.up_proj.weight"
MODELS = ("base", "a", "b")


def recipe_of(method: str, edge: str) -> Recipe:
    """Models base, a and b by a method. ``edge`` says what would keep an entry of b from being in the result."""
    row = METHODS[method]
    edges = {"plain": {}, "no weight": {"weight": 0.0}, "nothing kept": {"density": 0.0}, "cut": {"gamma": 0.4}}
    defaults = {"weight": 0.5, "density": 0.5, "epsilon": 0.1}
    own = {
        name: value for name, value in defaults.items() if name in row.by_name and row.by_name[name].scope == "model"
    }
    changed = {name: value for name, value in edges[edge].items() if name in row.by_name}
    listed: list[dict[str, Any]] = [{"model": "a", "parameters": own}, {"model": "b", "parameters": own | changed}]
    listed = listed[-1:] if row.maximum_models == 1 else listed
    settings = {"t": 0.001} if "t" in row.by_name else {}
    base = {} if row.base == "unused" else {"base_model": "base"}
    return Recipe.from_mapping({"merge_method": method, "models": listed, "parameters": settings, **base})


EDGES: dict[str, dict[str, float]] = {
    "plain": {},
    "no weight": {"weight": 0.0},
    "nothing kept": {"density": 0.0},
    "cut": {"gamma": 0.4},
}
POSSIBLE = [
    (method, edge)
    for method, row in METHODS.items()
    for edge, changed in EDGES.items()
    if changed.keys() <= row.by_name.keys()
]


@pytest.mark.parametrize("case", range(len(POSSIBLE)), ids=["-".join(case) for case in POSSIBLE])
def test_a_value_that_is_not_finite_is_an_error_with_model_and_tensor(case: int, zoo: Path):
    """Each model of a case has another such value, and in the next case the next one."""
    recipe = recipe_of(*POSSIBLE[case])
    merge(recipe, zoo / "whole", relative_to=zoo)
    models = [str(reference) for reference in recipe.references()]
    assert "b" in models
    for place, model in enumerate(models, start=case):
        file = zoo / model / "model.safetensors"
        content = file.read_bytes()
        tensors = load_file(file)
        tensors[BROKEN][5, 7] = (math.nan, math.inf, -math.inf)[place % 3]
        save_file(tensors, file, metadata={"format": "pt"})
        expected = f'model "{model}": tensor {BROKEN} has NaN or infinite values'
        with pytest.raises(MergeError) as caught:
            merge(recipe, zoo / "m", relative_to=zoo)
        assert expected in str(caught.value)
        live = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
        with pytest.raises(MergeError) as caught:
            LiveMerge({name: Checkpoint.open(zoo / name) for name in models}).write(recipe, live)
        assert expected in str(caught.value)
        file.write_bytes(content)
