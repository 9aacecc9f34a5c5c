"""The comparison of two models, and the interval of an objective."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from evolve.scoring import (
    Objective,
    ObjectiveKind,
    ObjectiveTerm,
    Scale,
    TaskError,
    bootstrap_interval,
    paired_difference,
)

UP, DOWN = ObjectiveTerm(1.0, "maximize"), ObjectiveTerm(3.0, "minimize")
ALONE = Objective({"a": UP})


def means(model: dict[str, dict[int, float]]) -> dict[str, float]:
    return {name: float(np.mean(list(values.values()))) for name, values in model.items()}


@pytest.mark.parametrize("kind", ["weighted_sum", "worst", "geometric_mean"])
@pytest.mark.parametrize("scales", [{}, {"bits": Scale(-1.0, -0.25)}])
def test_the_difference_is_that_of_the_objectives(kind: ObjectiveKind, scales: dict[str, Scale]) -> None:
    random = np.random.default_rng(0)
    first = {name: dict(enumerate(random.random(40))) for name in ("acc", "bits")}
    second = {name: dict(enumerate(random.random(40))) for name in ("acc", "bits")}
    objective = Objective({"acc": UP, "bits": DOWN}, kind, scales)
    found = paired_difference(first, second, objective, seed=1)
    assert found.difference == pytest.approx(objective.value(means(first)) - objective.value(means(second)))
    assert found.low < found.difference < found.high
    assert found.items == 80
    assert found == paired_difference(first, second, objective, seed=1)


@pytest.mark.parametrize("kind", ["weighted_sum", "worst", "geometric_mean"])
def test_a_model_equals_itself_exactly(kind: ObjectiveKind) -> None:
    values = {"acc": {0: 1.0, 1: 0.0, 2: 1.0}, "f1": {0: 0.3, 1: 0.1}}
    found = paired_difference(values, values, Objective({"acc": UP, "f1": UP}, kind))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_the_interval_is_the_normal_one_for_many_items() -> None:
    deltas = np.random.default_rng(2).normal(0.1, 1.0, 5000)
    first, second = {"a": dict(enumerate(deltas.tolist()))}, {"a": dict.fromkeys(range(5000), 0.0)}
    found = paired_difference(first, second, ALONE, resamples=4000)
    half = 1.96 * deltas.std() / math.sqrt(5000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)


def test_only_items_that_both_models_saw_are_compared() -> None:
    found = paired_difference({"a": {1: 1.0, 2: 1.0}}, {"a": {2: 0.0, 3: 0.0}}, ALONE)
    assert (found.difference, found.items) == (1.0, 1)
    with pytest.raises(TaskError, match="share no scored item of task 'a'"):
        paired_difference({"a": {1: 1.0}}, {"a": {2: 0.0}}, ALONE)


@pytest.mark.parametrize("kind", ["worst", "geometric_mean"])
def test_the_interval_of_an_objective_is_scipys_bootstrap_of_its_formula(kind: ObjectiveKind) -> None:
    random = np.random.default_rng(3)
    first, second = (random.random(150) < 0.62).astype(float), random.random(90)
    formula = {
        "worst": lambda a, b: np.minimum(a.mean(-1), b.mean(-1)),
        "geometric_mean": lambda a, b: np.sqrt(a.mean(-1) * b.mean(-1)),
    }[kind]
    expected = stats.bootstrap(
        (first, second), lambda a, b, axis: formula(a, b), method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    scores = {"a": dict(enumerate(first.tolist())), "b": dict(enumerate(second.tolist()))}
    low, high = bootstrap_interval(scores, Objective({"a": UP, "b": UP}, kind), resamples=9999)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_a_task_without_items_has_no_interval() -> None:
    with pytest.raises(TaskError, match="no item of a was scored"):
        bootstrap_interval({"a": {}}, ALONE)
