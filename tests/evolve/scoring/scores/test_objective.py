"""From task scores to the objective."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from evolve.scoring import Objective, ObjectiveTerm, Scale, TaskError

UP, DOWN = ObjectiveTerm(1.0, "maximize"), ObjectiveTerm(3.0, "minimize")
BOTH = {"acc": UP, "bits": DOWN}


def test_the_weighted_sum_is_the_weighted_mean_where_more_is_better() -> None:
    assert Objective(BOTH).value({"acc": 0.8, "bits": 1.2}) == pytest.approx((0.8 - 3.6) / 4)


@pytest.mark.parametrize("kind", ["weighted_sum", "worst", "geometric_mean"])
def test_scaling_all_weights_changes_nothing(kind) -> None:
    terms = {"a": ObjectiveTerm(1, "maximize"), "b": ObjectiveTerm(2, "maximize")}
    scaled = {"a": ObjectiveTerm(10, "maximize"), "b": ObjectiveTerm(20, "maximize")}
    scores = {"a": 0.3, "b": 0.9}
    assert Objective(terms, kind).value(scores) == pytest.approx(Objective(scaled, kind).value(scores))


@pytest.mark.parametrize("factor", [1e-323, 1e307])
def test_no_scale_of_the_weights_overflows_or_loses_digits(factor) -> None:
    terms = {name: ObjectiveTerm(weight * factor, "maximize") for name, weight in (("a", 2), ("b", 4))}
    assert Objective(terms).value({"a": 30.0, "b": 60.0}) == pytest.approx(50.0)


@pytest.mark.parametrize("kind", ["weighted_sum", "worst", "geometric_mean"])
def test_a_task_alone_is_the_objective_whatever_its_kind(kind) -> None:
    assert Objective({"acc": UP}, kind).value({"acc": 0.375}) == pytest.approx(0.375)


def test_the_worst_task_counts_whatever_the_weights() -> None:
    assert Objective(BOTH, "worst").value({"acc": 0.8, "bits": 1.2}) == -1.2


def test_the_geometric_mean_is_scipys() -> None:
    terms = {"a": ObjectiveTerm(1, "maximize"), "b": ObjectiveTerm(3, "maximize"), "c": ObjectiveTerm(2, "maximize")}
    scores = {"a": 0.2, "b": 0.9, "c": 0.5}
    expected = stats.gmean([0.2, 0.9, 0.5], weights=[1, 3, 2])
    assert Objective(terms, "geometric_mean").value(scores) == pytest.approx(expected)


def test_a_geometric_mean_without_all_scores_above_0_is_the_lowest_and_goes_over_without_a_step() -> None:
    objective = Objective({"a": UP, "b": ObjectiveTerm(1.0, "maximize")}, "geometric_mean")
    values = [objective.value({"a": low, "b": 0.5}) for low in (-0.3, -0.1, 0.0, 1e-12, 0.1)]
    assert values[:3] == [-0.3, -0.1, 0.0]
    assert values == sorted(values)
    assert values[3] < 1e-5


def test_many_models_at_once_score_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    scores = {name: random.normal(size=50) for name in BOTH}
    for kind in ("weighted_sum", "worst", "geometric_mean"):
        objective = Objective(BOTH, kind, {"bits": Scale(-2.0, -1.0)})
        alone = [objective.value({name: float(scores[name][n]) for name in BOTH}) for n in range(50)]
        assert objective.values(scores).tolist() == alone


def test_normalised_the_base_is_0_and_the_best_parent_1_in_every_task() -> None:
    base, one, two = {"acc": 0.4, "bits": 2.0}, {"acc": 0.6, "bits": 2.5}, {"acc": 0.5, "bits": 1.5}
    objective = Objective(BOTH, "worst").normalised(base, [one, two])
    assert objective.value(base) == pytest.approx(0.0)
    assert objective.value({"acc": 0.6, "bits": 1.5}) == pytest.approx(1.0)
    assert objective.value({"acc": 0.8, "bits": 1.75}) == pytest.approx(0.5)
    assert objective.value(one) == pytest.approx(-1.0)  # bits per byte: as far below the base as the best is above


def test_the_unit_of_a_metric_does_not_change_a_normalised_objective() -> None:
    parents = [{"acc": 0.6, "bits": 2.5}, {"acc": 0.5, "bits": 1.5}]
    base, model = {"acc": 0.4, "bits": 2.0}, {"acc": 0.55, "bits": 1.4}
    percent = [{"acc": 100 * scores["acc"], "bits": scores["bits"]} for scores in (base, model, *parents)]
    plain = Objective(BOTH).normalised(base, parents).value(model)
    assert Objective(BOTH).normalised(percent[0], percent[2:]).value(percent[1]) == pytest.approx(plain)


def test_where_no_parent_gains_the_unit_is_how_far_the_farthest_lies_below() -> None:
    objective = Objective({"acc": UP}).normalised({"acc": 0.6}, [{"acc": 0.4}, {"acc": 0.5}])
    assert objective.scales["acc"] == Scale(0.6, pytest.approx(0.8))
    same = Objective({"acc": UP}).normalised({"acc": 0.6}, [{"acc": 0.6}])
    assert same.value({"acc": 0.85}) == pytest.approx(0.25)


def test_without_a_base_the_worst_parent_is_0() -> None:
    objective = Objective({"bits": DOWN}).normalised(None, [{"bits": 1.0}, {"bits": 3.0}, {"bits": 2.0}])
    assert [objective.value({"bits": bits}) for bits in (3.0, 2.0, 1.0)] == pytest.approx([0.0, 0.5, 1.0])


def test_what_is_missing_is_an_error() -> None:
    with pytest.raises(TaskError, match="no score for b"):
        Objective({"a": UP, "b": UP}).value({"a": 1.0})
    with pytest.raises(TaskError, match="no parent was scored"):
        Objective(BOTH).normalised({"acc": 1.0, "bits": 1.0}, [])
    assert math.isnan(Objective({"a": UP}).value({"a": math.nan}))
