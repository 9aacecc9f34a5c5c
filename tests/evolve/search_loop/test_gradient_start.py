"""The gradient start with a made-up evaluator, whose loss is not its metric."""

from __future__ import annotations

import math

import pytest
from made_up_search import TEMPLATE, Killed, MeanTask, open_search

from evolve.config.schema import SearchConfig
from evolve.config.strategy import StartConfig
from evolve.evaluation.request import Slopes
from evolve.search_loop.answer_targets import AnswerTargets
from evolve.search_loop.gradient_start import (
    COMPLETED,
    LEAST_SIGMA,
    LOOK_EVERY,
    PATHS,
    PATIENCE_AT_FIRST,
    GradientStart,
    Start,
)
from evolve.search_loop.objective import ObjectiveFunction
from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.trials.events import GradientStepped, PointLookedAt
from evolve.trials.trial import Evaluation, State, best_of
from merge_core import ParameterSlot

SENSITIVITY = GeneSensitivity((0, 1), {("tensor", ParameterSlot("weight", place)): ((place, 1.0),) for place in (0, 1)})
ITEMS = tuple(range(12))
LOOK, STEP = ITEMS[:4], ITEMS[4:]
LOSS_BEST, METRIC_BEST = 0.2, 0.7
HIGHEST = 0.9  # of the metric
STARTS = {"best": (METRIC_BEST, METRIC_BEST), "half": (0.5, 0.5), "far": (1.0, 1.0)}


class FakeEvaluator:
    """A quadratic loss around one point, a quadratic metric around another."""

    workers = 1

    def __init__(
        self,
        loss_best=LOSS_BEST,
        die_after=None,
        unscored=lambda number: False,
        steps=lambda slopes: slopes,
        highest=HIGHEST,
        probability=0.5,
    ):
        self.probability = probability
        self.highest = highest
        self.loss_best, self.die_after, self.unscored, self.steps = loss_best, die_after, unscored, steps
        self.calls, self.seen = 0, []

    def _call(self, kind, request):
        if self.die_after is not None and self.calls >= self.die_after:
            raise Killed
        self.calls += 1
        self.seen.append((kind, request))
        return [entry["parameters"]["weight"] for entry in request.recipe["models"]]

    def evaluate(self, requests):
        for request in requests:
            weights = self._call("evaluate", request)
            if self.unscored(request.number):
                yield Evaluation(request.number, failure="out of luck")
            else:
                value = min(1.0, self.highest - sum((weight - METRIC_BEST) ** 2 for weight in weights))
                yield Evaluation(request.number, scores={"task": dict.fromkeys(request.items["task"], value)})

    def differentiate(self, requests):
        for request in requests:
            weights = self._call("differentiate", request)
            slopes = {
                ("tensor", ParameterSlot("weight", place)): 2 * (weight - self.loss_best)
                for place, weight in enumerate(weights)
            }
            yield self.steps(
                Slopes(request.number, slopes, {"task": dict.fromkeys(request.items["task"], self.probability)})
            )


def begin(path, evaluator, starts=STARTS, events=None, resolution="gene", corners=(), **options):
    config = SearchConfig(recipe=TEMPLATE, tasks=[{"name": "task"}])
    function = ObjectiveFunction([MeanTask()], config, None)
    watch = events.append if events is not None else lambda event: None
    search = open_search(path, evaluator, function, {"task": ITEMS}, watch=watch)
    return GradientStart(
        search=search,
        config=StartConfig(**options),
        resolution=resolution,
        sensitivity=SENSITIVITY,
        starts=[Start(label, vector, is_corner=label in corners) for label, vector in starts.items()],
        targets=AnswerTargets(),
        look_items={"task": LOOK},
        step_items={"task": STEP},
    )


def run(path, evaluator, **options):
    start = begin(path, evaluator, **options)
    assert start.run() is None
    return start


def steps(evaluator):
    return [request for kind, request in evaluator.seen if kind == "differentiate"]


def test_a_start_is_never_given_up_for_a_lower_loss(tmp_path):
    start = run(tmp_path, FakeEvaluator())
    best = best_of(start.search.trials)
    assert (best.label, best.vector) == ("best", STARTS["best"])
    assert len(start.search.trials) == COMPLETED


def test_no_way_begins_where_the_smallest_step_makes_another_model_and_the_start_is_not_given_up(tmp_path):
    evaluator = FakeEvaluator()
    start = run(tmp_path, evaluator, corners=["best"], steps=8)
    begun = {tuple(entry["parameters"]["weight"] for entry in request.recipe["models"]) for request in steps(evaluator)}
    assert (0.5, 0.5) in begun
    assert (METRIC_BEST, METRIC_BEST) not in begun
    assert best_of(start.search.trials).label == "best"


def test_a_way_below_a_corner_has_as_many_looks_as_one_that_gains_on_its_own_start(tmp_path):
    """What it gains is told from where it began."""
    way = FakeEvaluator(loss_best=0.6)
    run(tmp_path, way, starts={"corner": (METRIC_BEST, METRIC_BEST), "far": (0.0, 0.0)}, corners=["corner"], rate=0.01)
    assert len(steps(way)) > (PATIENCE_AT_FIRST + 1) * LOOK_EVERY


def test_where_loss_and_metric_agree_the_way_is_better_than_every_start(tmp_path):
    start = run(tmp_path, FakeEvaluator(loss_best=METRIC_BEST), starts={"half": (0.5, 0.3), "far": (1.0, 1.0)})
    best = best_of(start.search.trials)
    assert best.label not in ("half", "far")
    assert best.objective > HIGHEST - 0.001


def test_it_ends_when_the_metric_has_not_gained_for_some_looks(tmp_path):
    evaluator = FakeEvaluator()
    run(tmp_path, evaluator)
    assert len(steps(evaluator)) == PATHS * LOOK_EVERY + (PATIENCE_AT_FIRST - 1) * LOOK_EVERY


def test_steps_that_lead_past_what_is_better_are_made_again_smaller(tmp_path):
    near = (METRIC_BEST - 0.05,) * 2
    evaluator = FakeEvaluator(loss_best=1.0)
    start = run(tmp_path, evaluator, starts={"near": near}, steps=3 * LOOK_EVERY)
    assert start.has_gained
    assert best_of(start.search.trials).objective > HIGHEST - 2 * 0.05**2
    begins = [step.recipe["models"][0]["parameters"]["weight"] for step in steps(evaluator)[::LOOK_EVERY]]
    assert begins == pytest.approx([near[0]] * 3)
    ways = [step.way for step in start.search.replay.steps]
    assert list(dict.fromkeys(ways)) == ["near", "near at rate 0.033", "near at rate 0.011"]


def test_a_way_that_is_best_with_its_layers_closer_together_has_gained(tmp_path, monkeypatch):
    best = {"75 % of what differs": (METRIC_BEST, METRIC_BEST)}
    monkeypatch.setattr(GradientStart, "_shrunk", lambda start: best)
    start = run(tmp_path, FakeEvaluator(loss_best=0.6), starts={"half": (0.5, 0.3)}, resolution="auto")
    assert best_of(start.search.trials).label in best
    assert start.has_gained


def test_layers_in_which_nothing_differs_are_not_looked_at_closer_together(tmp_path):
    events = []
    evaluator = FakeEvaluator(loss_best=METRIC_BEST)
    start = run(tmp_path, evaluator, starts={"half": (0.5, 0.3)}, resolution="auto", events=events)
    assert start.has_gained
    labels = [event.label for event in events if isinstance(event, PointLookedAt)]
    assert labels
    assert not [label for label in labels if "differs" in label]


@pytest.mark.parametrize(
    ("highest", "probability", "ends"), [(1.0, 0.95, True), (HIGHEST, 0.95, False), (1.0, 0.5, False)]
)
def test_it_ends_where_every_item_of_the_looks_is_right_and_steps_are_sure_of_theirs(
    tmp_path, highest, probability, ends
):
    evaluator = FakeEvaluator(highest=highest, probability=probability)
    start = run(tmp_path, evaluator)
    assert start.has_nothing_to_gain == ends
    assert (len(steps(evaluator)) == PATHS * LOOK_EVERY) == ends
    assert best_of(start.search.trials).vector == STARTS["best"]


def test_it_ends_at_the_look_at_which_every_item_is_right(tmp_path):
    evaluator = FakeEvaluator(loss_best=METRIC_BEST, highest=1.02, probability=0.95)
    start = run(tmp_path, evaluator, starts={"half": (0.5, 0.3)})
    assert start.has_nothing_to_gain
    assert best_of(start.search.trials).label == f"step {len(steps(evaluator))} from half"
    assert len(steps(evaluator)) % LOOK_EVERY == 0


def test_no_more_steps_are_made_than_are_asked_for(tmp_path):
    evaluator, events = FakeEvaluator(loss_best=METRIC_BEST), []
    run(tmp_path, evaluator, steps=11, events=events)
    assert len(steps(evaluator)) == PATHS * LOOK_EVERY + 3
    told = [event for event in events if isinstance(event, GradientStepped)]
    assert max(event.step for event in told) == 11


def test_only_a_point_that_is_better_than_all_before_it_is_said_to_gain(tmp_path):
    events = []
    run(
        tmp_path,
        FakeEvaluator(),
        starts={"half": (0.5, 0.9), "same": (0.9, 0.5), "best": STARTS["best"]},
        events=events,
    )
    looks = [event for event in events if isinstance(event, PointLookedAt)]
    assert [event.gained for event in looks[:3]] == [True, False, True]
    assert not any(event.gained for event in looks[3:])


def test_steps_never_see_the_items_that_points_are_looked_at_on(tmp_path):
    evaluator = FakeEvaluator()
    run(tmp_path, evaluator)
    assert {item for request in steps(evaluator) for item in request.items["task"]} <= set(STEP)
    looks = [request for kind, request in evaluator.seen if kind == "evaluate" and len(request.items["task"]) == 4]
    assert {item for request in looks for item in request.items["task"]} == set(LOOK)
    rest = [request for kind, request in evaluator.seen if kind == "evaluate"][-COMPLETED:]
    assert all(request.items["task"] == STEP for request in rest)  # candidates are scored on what is left


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_its_way_with_the_reason(tmp_path, broken):
    def spoil(slopes):
        if slopes.number % PATHS:  # of the second path
            return slopes
        return Slopes(slopes.number, dict.fromkeys(slopes.slopes, broken), slopes.probabilities)

    evaluator = FakeEvaluator(steps=spoil)
    start = run(tmp_path, evaluator, steps=LOOK_EVERY)
    assert start.failures[0] == "the gradient ends at step 0 from best: the gradient is not finite"
    assert all(math.isfinite(unit) for trial in start.search.trials for unit in trial.vector)
    assert start.search.replay._steps[0].failure == "the gradient is not finite"


def test_where_no_start_can_be_differentiated_the_starts_are_the_candidates(tmp_path):
    evaluator = FakeEvaluator(steps=lambda slopes: Slopes(slopes.number, failure="no memory"))
    start = run(tmp_path, evaluator)
    assert [trial.vector for trial in start.search.trials] == [STARTS["best"], STARTS["half"], STARTS["far"]]
    assert len(start.failures) == PATHS
    assert all(failure.endswith(": no memory") for failure in start.failures)
    assert start.sigmas() == {}


def test_where_no_start_can_be_scored_nothing_is_followed_and_it_is_told(tmp_path):
    evaluator = FakeEvaluator(unscored=lambda number: True)
    start = run(tmp_path, evaluator)
    assert not start.search.trials
    assert not steps(evaluator)
    assert start.failures == [
        "best of the gradient start cannot be scored: out of luck",
        "no start of the gradient has an objective; the search begins at the references",
    ]


def test_the_step_sizes_of_the_search_are_what_genes_still_moved_by(tmp_path):
    start = run(tmp_path, FakeEvaluator(loss_best=METRIC_BEST), starts={"half": (0.7, 0.2)}, steps=3 * LOOK_EVERY)
    found = start.sigmas()
    assert sorted(found) == [0, 1]
    assert found[0] == pytest.approx(LEAST_SIGMA)  # it stood where it is best from the beginning
    assert LEAST_SIGMA <= found[1] < 1


def table(start):
    return [(trial.number, trial.label, trial.vector, trial.objective, trial.state) for trial in start.search.trials]


def test_killed_after_any_look_step_or_candidate_and_resumed_it_is_the_run_that_was_never_killed(tmp_path_factory):
    evaluator = FakeEvaluator()
    whole = run(tmp_path_factory.mktemp("whole"), evaluator, steps=2 * LOOK_EVERY)
    for deaths in range(evaluator.calls):
        path = tmp_path_factory.mktemp("killed")
        with pytest.raises(Killed):
            begin(path, FakeEvaluator(die_after=deaths), steps=2 * LOOK_EVERY).run()
        again = FakeEvaluator()
        resumed = run(path, again, steps=2 * LOOK_EVERY)
        assert table(resumed) == table(whole)
        assert resumed.sigmas() == whole.sigmas()
        assert again.calls == evaluator.calls - deaths  # nothing is asked again
        assert resumed.search.spent() == whole.search.spent()
    assert all(trial.state is State.COMPLETE for trial in whole.search.trials)
