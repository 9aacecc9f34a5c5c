"""The objective and the comparison of two models."""

import math

import numpy as np
import pytest

from tasks import ObjectiveTerm, TaskError, objective, paired_difference

UP, DOWN = ObjectiveTerm(1.0, "maximize"), ObjectiveTerm(3.0, "minimize")


def test_the_objective_is_the_weighted_mean_where_more_is_better() -> None:
    assert objective({"acc": 0.8, "bits": 1.2}, {"acc": UP, "bits": DOWN}) == pytest.approx((0.8 - 3.6) / 4)


def test_scaling_all_weights_changes_nothing() -> None:
    terms = {"a": ObjectiveTerm(1, "maximize"), "b": ObjectiveTerm(2, "maximize")}
    scaled = {"a": ObjectiveTerm(10, "maximize"), "b": ObjectiveTerm(20, "maximize")}
    assert objective({"a": 0.3, "b": 0.9}, terms) == pytest.approx(objective({"a": 0.3, "b": 0.9}, scaled))


def test_a_missing_score_is_an_error() -> None:
    with pytest.raises(TaskError, match="no score for b"):
        objective({"a": 1.0}, {"a": UP, "b": UP})


def test_the_difference_is_that_of_the_objectives() -> None:
    random = np.random.default_rng(0)
    first = {name: dict(enumerate(random.random(40))) for name in ("acc", "bits")}
    second = {name: dict(enumerate(random.random(40))) for name in ("acc", "bits")}
    terms = {"acc": UP, "bits": DOWN}
    means = [
        {name: float(np.mean(list(values.values()))) for name, values in model.items()} for model in (first, second)
    ]
    found = paired_difference(first, second, terms, seed=1)
    assert found.difference == pytest.approx(objective(means[0], terms) - objective(means[1], terms))
    assert found.low < found.difference < found.high
    assert found.items == 80
    assert found == paired_difference(first, second, terms, seed=1)


def test_a_model_equals_itself_exactly() -> None:
    values = {"acc": {0: 1.0, 1: 0.0, 2: 1.0}}
    found = paired_difference(values, values, {"acc": UP})
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_the_interval_is_the_normal_one_for_many_items() -> None:
    deltas = np.random.default_rng(2).normal(0.1, 1.0, 5000)
    first, second = {"a": dict(enumerate(deltas.tolist()))}, {"a": dict.fromkeys(range(5000), 0.0)}
    found = paired_difference(first, second, {"a": UP}, resamples=4000)
    half = 1.96 * deltas.std() / math.sqrt(5000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)


def test_only_items_that_both_models_saw_are_compared() -> None:
    found = paired_difference({"a": {1: 1.0, 2: 1.0}}, {"a": {2: 0.0, 3: 0.0}}, {"a": UP})
    assert (found.difference, found.items) == (1.0, 1)
    with pytest.raises(TaskError, match="share no scored item of task 'a'"):
        paired_difference({"a": {1: 1.0}}, {"a": {2: 0.0}}, {"a": UP})
