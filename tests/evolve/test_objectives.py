"""What a search maximises: kinds of objective, and scales that the parents set."""

import statistics
from dataclasses import dataclass

import pytest

from evolve.config import SearchConfig
from evolve.objectives import Judge, ObjectiveError, objective_facts
from evolve.trial import Evaluation
from tasks import ScoringError
from tasks.item_statistics import MeanOfItems, score_with_error

MODELS = [{"model": "a", "parameters": {"weight": {"low": 0, "high": 1}}}, {"model": "b"}]


@dataclass(frozen=True)
class Mean:
    """A scorer that only aggregates."""

    name: str
    direction: str = "maximize"

    def aggregate(self, values):
        return score_with_error(MeanOfItems(statistics.fmean), values)


ACC, LOSS = Mean("acc"), Mean("loss", "minimize")


def judge(base="base", signal="metric", **settings):
    tasks = [{"name": "acc", "signal": signal}, {"name": "loss", "weight": 3}]
    config = SearchConfig(recipe={"merge_method": "linear", "models": MODELS}, tasks=tasks, **settings)
    return Judge((ACC, LOSS), config, base)


def scored(number, acc, loss, signals=None):
    return Evaluation(number, scores={"acc": {0: acc}, "loss": {0: loss}}, signals=signals or {})


def test_without_settings_it_is_the_weighted_mean():
    task_scores, objective = judge()({"acc": {0: 1.0, 1: 0.0}, "loss": {5: 2.0}})
    assert task_scores == {"acc": 0.5, "loss": 2.0}
    assert objective == pytest.approx((0.5 - 3 * 2.0) / 4)


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_objective_that_is_not_finite_is_a_failure():
    with pytest.raises(ScoringError, match="the objective is -inf"):
        judge()({"acc": {0: -1.7e308}, "loss": {0: 1.7e308}})


def test_the_parents_set_the_scale_and_the_worst_task_counts():
    found = judge(objective="worst", normalize="parents")
    parents = {"base": scored(0, 0.2, 3.0), "a": scored(1, 0.6, 4.0), "b": scored(2, 0.4, 2.0)}
    found.calibrate(parents)
    assert found(parents["base"].scores)[1] == pytest.approx(0.0)
    assert found({"acc": {0: 0.6}, "loss": {0: 2.5}})[1] == pytest.approx(0.5)
    assert found.guide({"acc": 0.6, "loss": 2.5}, {}) == pytest.approx(0.5)
    facts = objective_facts(found.objective)
    assert facts["scales"] == {"acc": {"0": 0.2, "1": pytest.approx(0.6)}, "loss": {"0": 3.0, "1": 2.0}}


def test_what_the_optimizer_is_told_has_the_scale_of_the_signals():
    found = judge(signal="margin", objective="worst", normalize="parents")
    parents = {
        "base": scored(0, 0.5, 3.0, {"acc": {0: 0.40}}),
        "a": scored(1, 0.5, 2.0, {"acc": {0: 0.44}}),  # as often right, by a larger margin
    }
    found.calibrate(parents)
    task_scores, _ = found(parents["a"].scores)
    assert found.guide(task_scores, {"acc": {0: 0.42}}) == pytest.approx(0.5)


@pytest.mark.parametrize("signal", ["margin", "mixed"])
@pytest.mark.parametrize("normalize", ["none", "parents"])
def test_a_larger_signal_is_told_as_better_where_the_metric_should_go_down(signal, normalize):
    tasks = [{"name": "acc"}, {"name": "loss", "signal": signal}]
    config = SearchConfig(recipe={"merge_method": "linear", "models": MODELS}, tasks=tasks, normalize=normalize)
    found = Judge((ACC, LOSS), config, "base")
    if normalize == "parents":
        found.calibrate(
            {
                "base": scored(0, 0.5, 3.0, {"loss": {0: 0.40}}),
                "a": scored(1, 0.7, 2.0, {"loss": {0: 0.44}}),
            }
        )
    low, middle, high = (found.guide({"acc": 0.6, "loss": 2.5}, {"loss": {0: near}}) for near in (0.40, 0.42, 0.44))
    assert low < middle < high
    assert found.guide({"acc": 0.6, "loss": 2.4}, {"loss": {0: 0.42}}) == pytest.approx(
        middle + {"margin": 0.0, "mixed": 0.05 / 2 if normalize == "none" else 0.05 / 1.04}[signal]
    )
    if normalize == "parents":
        assert middle == pytest.approx(0.5)  # half way from the base to the best parent


def test_a_parent_that_failed_is_left_out_and_a_base_that_failed_is_an_error():
    found = judge(normalize="parents")
    failed = Evaluation(1, failure="out of luck")
    found.calibrate({"base": scored(0, 0.2, 3.0), "a": failed, "b": scored(2, 0.4, 2.0)})
    assert found.objective.scales["acc"].zero == 0.2
    with pytest.raises(ObjectiveError, match="base could not be scored: out of luck"):
        judge(normalize="parents").calibrate({"base": failed, "a": scored(1, 0.2, 3.0)})
    with pytest.raises(ObjectiveError, match="a could not be scored: out of luck"):
        judge(normalize="parents").calibrate({"base": scored(0, 0.2, 3.0), "a": failed})


def test_without_a_base_the_worst_parent_is_0():
    found = judge(base=None, normalize="parents")
    found.calibrate({"a": scored(0, 0.2, 3.0), "b": scored(1, 0.4, 2.0)})
    assert found(scored(0, 0.2, 2.0).scores)[1] == pytest.approx(0.75)
