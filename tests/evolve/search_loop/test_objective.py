"""What a search maximises: kinds of objective, and scales that the parents set."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_up_search import MeanTask

from evolve.config.schema import SearchConfig
from evolve.scoring import ScoringError, rank_value
from evolve.search_loop.objective import ObjectiveError, ObjectiveFunction, objective_facts
from evolve.trials.costs import Cost
from evolve.trials.trial import Evaluation

MODELS = [{"model": "a", "parameters": {"weight": {"low": 0, "high": 1}}}, {"model": "b"}]


ACC, LOSS = MeanTask("acc"), MeanTask("loss", "minimize")


def function(base="base", signal="metric", **settings):
    tasks = [{"name": "acc", "signal": signal}, {"name": "loss", "weight": 3}]
    config = SearchConfig(recipe={"merge_method": "linear", "models": MODELS}, tasks=tasks, **settings)
    return ObjectiveFunction((ACC, LOSS), config, base)


def scored(number, acc, loss, signals=None):
    return Evaluation(number, scores={"acc": {0: acc}, "loss": {0: loss}}, signals=signals or {})


def test_without_settings_it_is_the_weighted_mean():
    evaluation = Evaluation(0, scores={"acc": {0: 1.0, 1: 0.0}, "loss": {5: 2.0}})
    task_scores = function().task_scores(evaluation.scores)
    assert task_scores == {"acc": 0.5, "loss": 2.0}
    assert function().objective(task_scores, {}) == function()(evaluation) == pytest.approx((0.5 - 3 * 2.0) / 4)


def test_without_a_signal_the_optimizer_is_told_the_objective():
    found, task_scores = function(), {"acc": 0.5, "loss": 2.0}
    assert found.fitness(task_scores, Evaluation(0)) == found.objective(task_scores, {})


def test_several_objectives_are_of_their_own_tasks_and_told_one_by_one():
    found = function(objectives=[["acc"], ["acc", "loss"]], optimizer={"name": "nsga2"})
    task_scores = {"acc": 0.5, "loss": 2.0}
    assert found.objective_names == ("acc", "acc + loss")
    assert found.objective_values(task_scores, {}) == (0.5, pytest.approx((0.5 - 3 * 2.0) / 4))
    assert found.fitness(task_scores, Evaluation(0)) == found.objective_values(task_scores, {})
    outside = Evaluation(0, violations={"length": 0.5, "refusals": 0.5})
    assert found.fitness(task_scores, outside) == (rank_value(1.0),) * 2


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_objective_that_is_not_finite_is_a_failure():
    with pytest.raises(ScoringError, match="the objective is -inf"):
        function()(scored(0, -1.7e308, 1.7e308))


def test_the_parents_set_the_scale_and_the_worst_task_counts():
    found = function(objective="worst", normalize="parents")
    parents = {"base": scored(0, 0.2, 3.0), "a": scored(1, 0.6, 4.0), "b": scored(2, 0.4, 2.0)}
    found.calibrate(parents)
    assert found(parents["base"]) == pytest.approx(0.0)
    assert found(scored(3, 0.6, 2.5)) == pytest.approx(0.5)
    assert found.fitness({"acc": 0.6, "loss": 2.5}, Evaluation(0)) == pytest.approx(0.5)
    facts = objective_facts(found.scalarization, found.cost_terms)
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
    assert found(scored(0, 0.2, 2.0)) == pytest.approx(0.75)


def costly(number, acc, tokens, layers=4):
    found = scored(number, acc, 0.0)
    return replace(found, answer_counts={"acc": 2}, answer_tokens={"acc": 2 * tokens}, parameters=1000, layers=layers)


def test_a_cost_takes_its_weight_times_what_it_is_above_the_best_parents():
    found = function(cost={"answer_tokens": {"weight": 0.1}, "layers": {"weight": 0.4}})
    plain = function()
    parents = {"base": costly(0, 0.2, 90), "a": costly(1, 0.6, 20), "b": costly(2, 0.6, 30)}
    assert found.needs_parents
    found.calibrate(parents)
    assert found.cost_terms.references == {Cost.ANSWER_TOKENS: 20.0, Cost.LAYERS: 4.0}  # of the best, the first of them
    assert found(parents["a"]) == plain(parents["a"])
    short = costly(3, 0.6, 10, layers=3)
    assert found(short) == pytest.approx(plain(short) + 0.1 * 0.5 + 0.4 * 0.25)
    assert found(costly(3, 0.6, 40)) == pytest.approx(plain(short) - 0.1)
    assert found.fitness(found.task_scores(short.scores), short) == found(short)
    facts = objective_facts(found.scalarization, found.cost_terms)
    assert facts["costs"]["answer_tokens"] == {"weight": 0.1, "best_parent": 20.0}


def test_a_cost_can_be_an_objective_of_its_own_and_take_nothing_from_the_others():
    found = function(objectives=[["acc", "loss"], ["answer_tokens"]], cost={"answer_tokens": {}}, optimizer="nsga2")
    found.calibrate({"base": costly(0, 0.2, 90), "a": costly(1, 0.6, 20)})
    evaluation = costly(2, 0.8, 35)
    task_scores = found.task_scores(evaluation.scores)
    assert found.objective_names == ("acc + loss", "answer_tokens")
    assert found.objective_values(task_scores, found.cost_terms.measured(evaluation)) == (function()(evaluation), -35.0)
    assert found.fitness(task_scores, evaluation) == (function()(evaluation), -35.0)
    assert found(evaluation) == function()(evaluation)


def test_a_cost_that_cannot_be_measured_is_a_failure_and_without_a_parent_there_is_no_scale():
    found = function(cost={"answer_tokens": {"weight": 1}})
    with pytest.raises(ScoringError, match="no task had the model write an answer"):
        found(scored(0, 0.5, 1.0))
    with pytest.raises(ObjectiveError, match="cost: needs the scores of a parent; a could not be scored: out of luck"):
        found.calibrate({"a": Evaluation(0, failure="out of luck")})


def spread(acc, loss):
    return {"acc": dict(enumerate(acc)), "loss": dict(enumerate(loss))}


RIGHT = {"acc": {0: 1.0, 1: 1}, "other": {4: 1.0}}


def of_two(**settings):
    tasks = [{"name": "acc"}, {"name": "other"}]
    config = SearchConfig(recipe={"merge_method": "linear", "models": MODELS}, tasks=tasks, **settings)
    return ObjectiveFunction((ACC, MeanTask("other")), config, "base")


@pytest.mark.parametrize("objective", ["weighted_sum", "worst", "geometric_mean"])
def test_nothing_is_higher_than_every_item_right_where_right_is_1(objective):
    highest = of_two(objective=objective).is_highest
    assert highest(RIGHT, [RIGHT, {"acc": {0: 0.5}, "other": {4: 0}}])
    assert not highest({**RIGHT, "other": {4: 0.99}}, [RIGHT])


@pytest.mark.parametrize("value", [1.5, -0.1, None, ["text"]])
def test_of_a_metric_that_leaves_0_to_1_nobody_knows_what_is_highest(value):
    assert not of_two().is_highest(RIGHT, [RIGHT, {"acc": {0: value}, "other": {4: 1.0}}])


def test_where_less_is_better_or_costs_count_1_is_not_the_highest():
    assert not function().is_highest({"acc": {0: 1.0}, "loss": {0: 1.0}}, [])
    assert not of_two(cost={"layers": {"weight": 0.1}}).is_highest(RIGHT, [RIGHT])


def test_of_a_weighted_sum_the_slopes_are_the_weights():
    assert function().slopes(spread([1.0, 0.0], [2.0, 1.0])) == pytest.approx({"acc": 0.25, "loss": 0.75})


def test_of_the_worst_task_the_slopes_are_the_chances_that_it_is_the_worst():
    found = function(objective="worst")
    alike = spread([-2.0, -1.0, -3.0, -2.0], [2.0, 1.0, 3.0, 2.0])  # the same distribution, turned round
    slopes = found.slopes(alike)
    assert slopes == pytest.approx({"acc": 0.5, "loss": 0.5}, abs=0.1)
    assert sum(slopes.values()) == pytest.approx(1.0)
    assert found.slopes(spread([5.0, 5.1], [2.0, 1.0])) == pytest.approx({"acc": 0.0, "loss": 1.0})


def test_of_a_geometric_mean_the_lower_task_weighs_more_as_the_derivative_says():
    config = SearchConfig(
        recipe={"merge_method": "linear", "models": MODELS},
        tasks=[{"name": "acc"}, {"name": "other"}],
        objective="geometric_mean",
    )
    found = ObjectiveFunction((ACC, MeanTask("other")), config, "base")
    slopes = found.slopes({"acc": {0: 0.2}, "other": {0: 0.8}})  # d√(xy)/dx : d√(xy)/dy = y : x
    assert slopes == pytest.approx({"acc": 0.8, "other": 0.2}, abs=1e-3)


def test_where_no_score_moves_the_objective_every_task_counts_the_same():
    config = SearchConfig(
        recipe={"merge_method": "linear", "models": MODELS},
        tasks=[{"name": "acc"}, {"name": "other"}, {"name": "third"}],
        objective="geometric_mean",
    )
    found = ObjectiveFunction((ACC, MeanTask("other"), MeanTask("third")), config, "base")
    slopes = found.slopes({"acc": {0: 0.0}, "other": {0: 0.0}, "third": {0: 0.0}})
    assert sum(slopes.values()) == pytest.approx(1.0)
    assert all(slope >= 0 for slope in slopes.values())


def with_own(call):
    config = SearchConfig(
        recipe={"merge_method": "linear", "models": MODELS}, tasks=["acc", "loss"], objective="mine:own"
    )
    return ObjectiveFunction((ACC, LOSS), config, "base", call)


def test_a_function_that_has_no_number_for_some_scores_still_has_slopes():
    found = with_own(lambda scores: math.log(scores["acc"]) - scores["loss"])
    slopes = found.slopes(spread([0.2, 0.2], [2.0, 1.0]) | {"acc": {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}})
    assert all(slope > 0.05 for slope in slopes.values())
    assert slopes["acc"] > 0.6  # 1 / 0.25 and more, where loss has 1
    nowhere = with_own(lambda scores: math.log(scores["acc"] - 9)).slopes(spread([0.2, 0.2], [2.0, 1.0]))
    assert nowhere == pytest.approx({"acc": 0.5, "loss": 0.5})


def test_a_function_of_the_users_own_is_maximised_and_its_slopes_are_its_derivatives():
    found = with_own(lambda scores: scores["acc"] - 2 * scores["loss"])
    assert found.objective({"acc": 0.5, "loss": 2.0}, {}) == pytest.approx(-3.5)
    evaluation = Evaluation(0, scores={"acc": {0: 1.0, 1: 0.0}, "loss": {0: 2.0, 1: 1.0}})
    assert found(evaluation) == pytest.approx(0.5 - 2 * 1.5)
    assert found.slopes(evaluation.scores) == pytest.approx({"acc": 1 / 3, "loss": 2 / 3})


@pytest.mark.parametrize("call", [lambda scores: scores["no such"], lambda scores: "x", lambda scores: exit(3)])
def test_a_function_without_a_number_is_the_failure_of_what_it_was_asked_of(call):
    with pytest.raises(ScoringError, match=r"objective mine:own of acc 0\.5, loss 2: "):
        with_own(call).objective({"acc": 0.5, "loss": 2.0}, {})
    assert with_own(call).of_feasible(scored(0, 0.5, 2.0)) is None
