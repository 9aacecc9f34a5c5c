"""What a search maximises: kinds of objective, and scales that the parents set."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import pytest

from evolve.config.schema import SearchConfig
from evolve.scoring import ScoringError, rank_value
from evolve.scoring.scores.item_statistics import MeanOfItems, score_with_error
from evolve.search.objective import ObjectiveError, ObjectiveFunction, objective_facts
from evolve.trials.trial import Evaluation

MODELS = [{"model": "a", "parameters": {"weight": {"low": 0, "high": 1}}}, {"model": "b"}]


@dataclass(frozen=True)
class Mean:
    """A scorer that only aggregates."""

    name: str
    direction: str = "maximize"

    def aggregate(self, values):
        return score_with_error(MeanOfItems(statistics.fmean), values)


ACC, LOSS = Mean("acc"), Mean("loss", "minimize")


def function(base="base", signal="metric", **settings):
    tasks = [{"name": "acc", "signal": signal}, {"name": "loss", "weight": 3}]
    config = SearchConfig(recipe={"merge_method": "linear", "models": MODELS}, tasks=tasks, **settings)
    return ObjectiveFunction((ACC, LOSS), config, base)


def scored(number, acc, loss, signals=None):
    return Evaluation(number, scores={"acc": {0: acc}, "loss": {0: loss}}, signals=signals or {})


def test_without_settings_it_is_the_weighted_mean():
    scores = {"acc": {0: 1.0, 1: 0.0}, "loss": {5: 2.0}}
    task_scores = function().task_scores(scores)
    assert task_scores == {"acc": 0.5, "loss": 2.0}
    assert function().objective(task_scores) == function()(scores) == pytest.approx((0.5 - 3 * 2.0) / 4)


def test_without_a_signal_the_optimizer_is_told_the_objective():
    found, task_scores = function(), {"acc": 0.5, "loss": 2.0}
    assert found.fitness(task_scores, Evaluation(0)) == found.objective(task_scores)


def test_several_objectives_are_of_their_own_tasks_and_told_one_by_one():
    found = function(objectives=[["acc"], ["acc", "loss"]], optimizer={"name": "nsga2"})
    task_scores = {"acc": 0.5, "loss": 2.0}
    assert found.objective_names == ("acc", "acc + loss")
    assert found.objective_values(task_scores) == (0.5, pytest.approx((0.5 - 3 * 2.0) / 4))
    assert found.fitness(task_scores, Evaluation(0)) == found.objective_values(task_scores)
    outside = Evaluation(0, violations={"length": 0.5, "refusals": 0.5})
    assert found.fitness(task_scores, outside) == (rank_value(1.0),) * 2


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_objective_that_is_not_finite_is_a_failure():
    with pytest.raises(ScoringError, match="the objective is -inf"):
        function()({"acc": {0: -1.7e308}, "loss": {0: 1.7e308}})


def test_the_parents_set_the_scale_and_the_worst_task_counts():
    found = function(objective="worst", normalize="parents")
    parents = {"base": scored(0, 0.2, 3.0), "a": scored(1, 0.6, 4.0), "b": scored(2, 0.4, 2.0)}
    found.calibrate(parents)
    assert found(parents["base"].scores) == pytest.approx(0.0)
    assert found({"acc": {0: 0.6}, "loss": {0: 2.5}}) == pytest.approx(0.5)
    assert found.fitness({"acc": 0.6, "loss": 2.5}, Evaluation(0)) == pytest.approx(0.5)
    facts = objective_facts(found.scalarization)
    assert facts["scales"] == {"acc": {"0": 0.2, "1": pytest.approx(0.6)}, "loss": {"0": 3.0, "1": 2.0}}


def test_what_the_optimizer_is_told_has_the_scale_of_the_signals():
    found = function(signal="margin", objective="worst", normalize="parents")
    parents = {
        "base": scored(0, 0.5, 3.0, {"acc": {0: 0.40}}),
        "a": scored(1, 0.5, 2.0, {"acc": {0: 0.44}}),  # as often right, by a larger margin
    }
    found.calibrate(parents)
    task_scores = found.task_scores(parents["a"].scores)
    assert found.fitness(task_scores, Evaluation(0, signals={"acc": {0: 0.42}})) == pytest.approx(0.5)


@pytest.mark.parametrize("signal", ["margin", "mixed"])
@pytest.mark.parametrize("normalize", ["none", "parents"])
def test_a_larger_signal_is_told_as_better_where_the_metric_should_go_down(signal, normalize):
    tasks = [{"name": "acc"}, {"name": "loss", "signal": signal}]
    config = SearchConfig(recipe={"merge_method": "linear", "models": MODELS}, tasks=tasks, normalize=normalize)
    found = ObjectiveFunction((ACC, LOSS), config, "base")
    if normalize == "parents":
        found.calibrate(
            {
                "base": scored(0, 0.5, 3.0, {"loss": {0: 0.40}}),
                "a": scored(1, 0.7, 2.0, {"loss": {0: 0.44}}),
            }
        )
    near = [Evaluation(0, signals={"loss": {0: signal}}) for signal in (0.40, 0.42, 0.44)]
    low, middle, high = (found.fitness({"acc": 0.6, "loss": 2.5}, evaluation) for evaluation in near)
    assert low < middle < high
    assert found.fitness({"acc": 0.6, "loss": 2.4}, near[1]) == pytest.approx(
        middle + {"margin": 0.0, "mixed": 0.05 / 2 if normalize == "none" else 0.05 / 1.04}[signal]
    )
    if normalize == "parents":
        assert middle == pytest.approx(0.5)  # half way from the base to the best parent


def test_a_parent_that_failed_is_left_out_and_a_base_that_failed_is_an_error():
    found = function(normalize="parents")
    failed = Evaluation(1, failure="out of luck")
    found.calibrate({"base": scored(0, 0.2, 3.0), "a": failed, "b": scored(2, 0.4, 2.0)})
    assert found.scalarization.scales["acc"].zero == 0.2
    with pytest.raises(ObjectiveError, match="base could not be scored: out of luck"):
        function(normalize="parents").calibrate({"base": failed, "a": scored(1, 0.2, 3.0)})
    with pytest.raises(ObjectiveError, match="a could not be scored: out of luck"):
        function(normalize="parents").calibrate({"base": scored(0, 0.2, 3.0), "a": failed})


def test_without_a_base_the_worst_parent_is_0():
    found = function(base=None, normalize="parents")
    found.calibrate({"a": scored(0, 0.2, 3.0), "b": scored(1, 0.4, 2.0)})
    assert found(scored(0, 0.2, 2.0).scores) == pytest.approx(0.75)
