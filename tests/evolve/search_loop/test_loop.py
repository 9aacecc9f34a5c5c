"""The loop, with a made-up evaluator: budgets, failures, resuming."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from threading import Event as Flag

import pytest
from made_up_search import SPACE, TEMPLATE, Killed, MeanTask, open_search

from evolve.config.schema import SearchConfig
from evolve.optimizers import SearchProblem, create_optimizer
from evolve.scoring import rank_value
from evolve.search_loop.conduct import solved
from evolve.search_loop.ending import SearchError
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.references import recipes_of_references, reference_trials
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.events import SearchStopped, StopReason, TrialFinished
from evolve.trials.journal import Journal
from evolve.trials.journal_lines import JournalError
from evolve.trials.pareto_front import pareto_front
from evolve.trials.trial import Evaluation, Kind, State, best_of

ITEMS = {"task": (4, 9)}


class FakeEvaluator:
    """Scores a recipe by its weights; finishes requests in groups of `workers`, in shuffled order."""

    def __init__(self, workers=1, fail=lambda number: False, die_after=None, unforeseen=False):
        self.workers, self.fail, self.die_after, self.unforeseen = workers, fail, die_after, unforeseen
        self.scored = []

    def evaluate(self, requests):
        generator = random.Random(self.workers)
        requests = iter(requests)
        while group := list(itertools.islice(requests, self.workers)):
            generator.shuffle(group)
            for request in group:
                if self.die_after is not None and len(self.scored) >= self.die_after:
                    raise Killed
                self.scored.append(request.number)
                yield self.evaluation(request)

    def evaluation(self, request):
        if self.fail(request.number):
            return Evaluation(request.number, failure="out of luck", unforeseen=self.unforeseen)
        weights = [entry.get("parameters", {}).get("weight", 1.0) for entry in request.recipe["models"]]
        value = 1.0 - sum((weight - 0.7) ** 2 for weight in weights)
        return Evaluation(request.number, scores={"task": dict.fromkeys(request.items["task"], value)})


def objective_of(*names, signal="metric", **settings):
    """The objective function of tasks whose scores are the means of their items."""
    config = SearchConfig(recipe=TEMPLATE, tasks=[{"name": name, "signal": signal} for name in names], **settings)
    return ObjectiveFunction([MeanTask(name) for name in names], config, None)


def search(
    path,
    evaluator,
    optimizer="cma",
    stop=None,
    watch=lambda event: None,
    population=4,
    objective_function=None,
    **budget,
):
    objective_function = objective_function or objective_of("task")
    objectives = len(objective_function.objective_names) or 1
    made = open_search(path, evaluator, objective_function, ITEMS, watch=watch, stop=stop, **budget)
    made.score_references(reference_trials(SPACE, SPACE.template, mergeable=True))
    shape = {"seed": 3, "population_size": population, "objectives": objectives}
    problem = SearchProblem((0.5, 0.5), (0.2, 0.2), (0, 0), **shape)
    reason = made.run(create_optimizer(optimizer, problem))
    return reason, list(made.trials)


def table(trials):
    return [(trial.number, trial.label, trial.vector, trial.objective, trial.measured.failure) for trial in trials]


@pytest.mark.parametrize("evaluations", [1, 4, 10, 13])
def test_the_budget_is_the_budget(tmp_path, evaluations):
    evaluator = FakeEvaluator()
    reason, trials = search(tmp_path, evaluator, evaluations=evaluations)
    assert reason == "evaluations"
    assert sum(trial.kind is Kind.CANDIDATE for trial in trials) == evaluations
    assert len(evaluator.scored) == evaluations + 3


def test_parents_and_uniform_merge_come_first(tmp_path):
    _, trials = search(tmp_path, FakeEvaluator(), evaluations=4)
    assert [(trial.kind.value, trial.label) for trial in trials[:3]] == [
        ("parent", "a"),
        ("parent", "b"),
        ("uniform", "uniform merge"),
    ]


@pytest.mark.parametrize("optimizer", ["cma", "tpe"])
@pytest.mark.parametrize("workers", [2, 3, 7])
def test_the_number_of_workers_changes_nothing(tmp_path_factory, optimizer, workers):
    one = search(tmp_path_factory.mktemp("one"), FakeEvaluator(1), optimizer, evaluations=22)
    many = search(tmp_path_factory.mktemp("many"), FakeEvaluator(workers), optimizer, evaluations=22)
    assert table(one[1]) == table(many[1])


@pytest.mark.parametrize("optimizer", ["cma", "tpe"])
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_anywhere_and_resumed_it_is_the_run_that_was_never_killed(tmp_path_factory, optimizer, workers):
    whole = search(tmp_path_factory.mktemp("whole"), FakeEvaluator(workers), optimizer, evaluations=18)
    killed = tmp_path_factory.mktemp("killed")
    for deaths in (1, 2, 5, 3):
        with pytest.raises(Killed):
            search(killed, FakeEvaluator(workers, die_after=deaths), optimizer, evaluations=18)
    evaluator = FakeEvaluator(workers)
    resumed = search(killed, evaluator, optimizer, evaluations=18)
    assert table(resumed[1]) == table(whole[1])
    assert len(evaluator.scored) == 18 + 3 - (1 + 2 + 5 + 3)  # nothing finished was scored again


def test_a_raised_budget_goes_on_as_if_it_had_been_so_from_the_start(tmp_path_factory):
    whole = search(tmp_path_factory.mktemp("whole"), FakeEvaluator(), evaluations=21)
    raised = tmp_path_factory.mktemp("raised")
    search(raised, FakeEvaluator(), evaluations=6)
    search(raised, FakeEvaluator(), evaluations=15)
    assert table(search(raised, FakeEvaluator(), evaluations=21)[1]) == table(whole[1])


def test_failed_candidates_are_recorded_and_the_search_goes_on(tmp_path):
    reason, trials = search(tmp_path, FakeEvaluator(fail=lambda number: number % 3 == 0 and number > 2), evaluations=12)
    failed = [trial for trial in trials if trial.state is State.FAILED]
    assert reason == "evaluations"
    assert [trial.number for trial in failed] == [3, 6, 9, 12]
    assert all(trial.objective is None and trial.measured.failure == "out of luck" for trial in failed)


def test_a_search_whose_parents_all_fail_ends_with_the_reason(tmp_path):
    with pytest.raises(SearchError, match=r"no parent could be scored; a: out of luck"):
        search(tmp_path, FakeEvaluator(fail=lambda number: True), evaluations=4)


def test_a_search_whose_candidates_all_fail_ends_early_with_the_reason(tmp_path):
    with pytest.raises(SearchError, match=r"all 4 candidates failed, the last with: out of luck"):
        search(tmp_path, FakeEvaluator(fail=lambda number: number > 2), evaluations=400)


def test_a_score_that_is_not_a_number_is_a_failure(tmp_path):
    class NotANumber(FakeEvaluator):
        def evaluation(self, request):
            if request.number == 4:
                return Evaluation(4, scores={"task": {4: float("nan")}})
            return super().evaluation(request)

    _, trials = search(tmp_path, NotANumber(), evaluations=4)
    assert trials[4].state is State.FAILED
    assert trials[4].objective is None


def test_target_and_plateau_end_it_between_batches(tmp_path_factory):
    reason, trials = search(tmp_path_factory.mktemp("target"), FakeEvaluator(), target=0.9)
    assert reason == "target"
    assert max(trial.objective for trial in trials[3:]) >= 0.9
    assert (len(trials) - 3) % 4 == 0
    events = []
    reason, trials = search(tmp_path_factory.mktemp("plateau"), FakeEvaluator(), plateau=20, watch=events.append)
    objectives = [trial.objective for trial in trials[3:]]
    assert reason == "plateau"
    since_best = len(objectives) - 1 - objectives.index(max(objectives))
    assert 20 <= since_best < 24
    assert [event.since_best for event in events if isinstance(event, SearchStopped)] == [since_best]


def test_a_time_budget_ends_it(tmp_path, monkeypatch):
    clock = itertools.count()  # a second passes whenever somebody looks
    monkeypatch.setattr("evolve.search_loop.ending.time.monotonic", lambda: next(clock))
    reason, trials = search(tmp_path, FakeEvaluator(), minutes=1)
    assert reason == "minutes"
    assert any(trial.kind is Kind.CANDIDATE for trial in trials)


def test_what_the_opening_took_is_in_no_candidates_time(tmp_path, monkeypatch):
    clock, told = [0.0], []

    class Slow(FakeEvaluator):
        def evaluation(self, request):
            clock[0] += 100.0 if request.number < 3 else 1.0
            return super().evaluation(request)

    monkeypatch.setattr("evolve.search_loop.ending.time.monotonic", lambda: clock[0])
    search(tmp_path, Slow(), watch=told.append, evaluations=8)
    trials = [event for event in told if isinstance(event, TrialFinished) and event.trial.kind is Kind.CANDIDATE]
    assert [event.seconds_per_evaluation for event in trials] == [1.0] * 8
    assert [event.seconds_left for event in trials] == [float(left) for left in range(7, -1, -1)]


def test_a_soft_stop_keeps_what_is_scored_and_can_go_on(tmp_path_factory):
    whole = search(tmp_path_factory.mktemp("whole"), FakeEvaluator(), evaluations=16)
    path, stop = tmp_path_factory.mktemp("stopped"), Flag()

    def stop_at_eight(event):
        if isinstance(event, TrialFinished) and event.trial.number == 8:
            stop.set()

    reason, trials = search(path, FakeEvaluator(), stop=stop, watch=stop_at_eight, evaluations=16)
    assert reason == "interrupted"
    assert trials[8].state is State.COMPLETE
    assert table(search(path, FakeEvaluator(), evaluations=16)[1]) == table(whole[1])


@pytest.mark.parametrize("bound", [{"plateau": 9}, {"target": 0.93}])
def test_other_bounds_than_evaluations_also_end_a_resumed_run_where_they_end_a_whole_one(tmp_path_factory, bound):
    whole = search(tmp_path_factory.mktemp("whole"), FakeEvaluator(), **bound)
    killed = tmp_path_factory.mktemp("killed")
    for deaths in (5, 4):
        with pytest.raises(Killed):
            search(killed, FakeEvaluator(die_after=deaths), **bound)
    resumed = search(killed, FakeEvaluator(), **bound)
    assert resumed[0] == whole[0]
    assert table(resumed[1]) == table(whole[1])


def test_repeated_recipes_are_scored_once(tmp_path):
    space = RecipeSpace.from_template(
        Template.read(
            {
                "merge_method": "linear",
                "models": [
                    {"model": "a", "parameters": {"weight": {"low": 0, "high": 1, "step": 1}}},
                    {"model": "b", "parameters": {"weight": {"low": 0, "high": 1, "step": 1}}},
                ],
            }
        ),
        2,
    )
    evaluator = FakeEvaluator()
    made = open_search(tmp_path, evaluator, objective_of("task"), ITEMS, space=space, evaluations=40)
    made.run(create_optimizer("cma", SearchProblem((0.5, 0.5), (0.3, 0.3), (0, 0), seed=1)))
    assert len(evaluator.scored) <= 4
    assert sum(trial.objective is not None for trial in made.trials) == 40


class Corners:
    """Asks for the parents, the plain average, and two other points, one of them twice; then for all of that again."""

    label, exhausts = "corners", True

    def __init__(self):
        points = [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.2, 0.4), (0.2, 0.4), (0.6, 0.6)]
        self.batches = [points, [*reversed(points)]]

    def ask(self):
        return self.batches.pop(0) if self.batches else []

    def tell(self, vectors, results):
        pass


def search_of_corners(path, evaluator, steady=False, **budget):
    made = open_search(path, evaluator, objective_of("task"), ITEMS, **budget)
    references = reference_trials(SPACE, SPACE.template, mergeable=True)
    made.score_references(references)
    for number, recipe in recipes_of_references(SPACE, SPACE.template, references).items():
        made.ledger.equate(recipe, references[number])
    made.run(Corners(), steady)
    return made


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("die_after", [None, 4])
def test_copies_of_references_and_of_one_another_cost_no_items(tmp_path, steady, die_after):
    if die_after is not None:
        with pytest.raises(Killed):
            search_of_corners(tmp_path, FakeEvaluator(die_after=die_after), steady)
    evaluator = FakeEvaluator()
    made = search_of_corners(tmp_path, evaluator, steady)
    assert len(evaluator.scored) + (die_after or 0) == 3 + 2
    assert made.item_evaluations() == 2 * (3 + 2)
    references, candidates = made.trials[:3], made.trials[3:]
    assert [trial.objective for trial in candidates[:3]] == [trial.objective for trial in references]
    assert candidates[4].objective == candidates[3].objective
    assert [trial.objective for trial in candidates[6:]] == [trial.objective for trial in reversed(candidates[:6])]


def test_a_recipe_that_failed_is_tried_again(tmp_path):
    made = search_of_corners(tmp_path, FakeEvaluator(fail=lambda number: number == 6), evaluations=6)
    assert [made.trials[number].state for number in (6, 7)] == [State.FAILED, State.COMPLETE]


@pytest.mark.parametrize("steady", [False, True])
def test_a_copy_of_a_reference_that_failed_is_scored_itself(tmp_path, steady):
    made = search_of_corners(tmp_path, FakeEvaluator(fail=lambda number: number == 0), steady, evaluations=6)
    assert [made.trials[number].state for number in (0, 1, 3, 4)] == [State.FAILED, *[State.COMPLETE] * 3]
    assert made.trials[3].measured.new_items == 2
    assert made.trials[4].measured.new_items == 0


def test_no_optimizer_begins_where_every_item_is_right_and_one_that_has_begun_goes_on(tmp_path):
    def opened(name, best):
        (tmp_path / name).mkdir(exist_ok=True)
        made = open_search(tmp_path / name, FakeEvaluator(), objective_of("task"), ITEMS)
        made.score_references(reference_trials(SPACE, SPACE.template, mergeable=True))
        made.score_points({"found": best})
        return made

    assert solved(opened("right", (0.7, 0.7))) is StopReason.SOLVED
    made = opened("wrong", (0.5, 0.5))
    assert solved(made) is None
    optimizer = Corners()
    optimizer.batches = [[(0.7, 0.7)]]
    made.run(optimizer)
    assert max(trial.objective for trial in made.trials) == 1.0
    assert solved(opened("wrong", (0.5, 0.5))) is None  # resumed


class CoarseEvaluator(FakeEvaluator):
    """A metric of whole steps, with a signal that says how far the candidate is within a step."""

    def evaluation(self, request):
        (values,) = super().evaluation(request).scores.values()
        coarse = {item: float(value > 0.9) for item, value in values.items()}
        return Evaluation(request.number, scores={"task": coarse}, signals={"task": values})


def test_the_optimizer_is_told_the_signal_and_the_best_is_chosen_by_the_metric(tmp_path_factory):
    by_signal = search(
        tmp_path_factory.mktemp("a"),
        CoarseEvaluator(),
        objective_function=objective_of("task", signal="margin"),
        evaluations=12,
    )[1]
    fine = search(tmp_path_factory.mktemp("b"), FakeEvaluator(), evaluations=12)[1]
    coarse = search(tmp_path_factory.mktemp("c"), CoarseEvaluator(), evaluations=12)[1]
    assert [trial.vector for trial in by_signal] == [trial.vector for trial in fine]
    assert [trial.vector for trial in by_signal] != [trial.vector for trial in coarse]
    assert {trial.objective for trial in by_signal} == {0.0, 1.0}
    assert best_of(by_signal) == next(trial for trial in by_signal if trial.objective == 1.0)


def test_a_search_told_a_signal_resumes_as_if_it_had_never_been_killed(tmp_path_factory):
    whole = search(
        tmp_path_factory.mktemp("whole"),
        CoarseEvaluator(),
        objective_function=objective_of("task", signal="margin"),
        evaluations=18,
    )
    killed = tmp_path_factory.mktemp("killed")
    for deaths in (5, 4, 3):
        with pytest.raises(Killed):
            search(
                killed,
                CoarseEvaluator(die_after=deaths),
                objective_function=objective_of("task", signal="margin"),
                evaluations=18,
            )
    resumed = search(
        killed, CoarseEvaluator(), objective_function=objective_of("task", signal="margin"), evaluations=18
    )
    assert table(resumed[1]) == table(whole[1])
    assert [(trial.fitness, trial.measured.signals) for trial in resumed[1]] == [
        (trial.fitness, trial.measured.signals) for trial in whole[1]
    ]


def test_a_signal_that_is_asked_for_and_missing_fails_the_candidate(tmp_path):
    with pytest.raises(SearchError, match="signal: mixed is asked for, but no item has"):
        search(tmp_path, FakeEvaluator(), objective_function=objective_of("task", signal="mixed"), evaluations=4)


def test_a_journal_of_another_optimizer_is_refused(tmp_path):
    search(tmp_path, FakeEvaluator(), evaluations=8)
    with pytest.raises(JournalError, match="proposed by another version"):
        search(tmp_path, FakeEvaluator(), "tpe", evaluations=8)


class Constrained(FakeEvaluator):
    """Recipes of much weight are infeasible, the more the worse; `only` makes all of them so."""

    def __init__(self, only=False, **settings):
        super().__init__(**settings)
        self.only = only

    def evaluation(self, request):
        found = super().evaluation(request)
        total = sum(entry.get("parameters", {}).get("weight", 1.0) for entry in request.recipe["models"])
        outside = max(total - (0.0 if self.only else 1.0), 0.0)
        return replace(found, constraints={"total": total}, violations={"total": outside} if outside else {})


@pytest.mark.parametrize("optimizer", ["cma", "tpe"])
def test_the_best_is_feasible_though_infeasible_candidates_score_higher(tmp_path, optimizer):
    _, trials = search(tmp_path, Constrained(), optimizer, evaluations=120)
    infeasible = [trial for trial in trials if trial.state is State.INFEASIBLE]
    assert infeasible
    assert all(trial.objective is None and trial.measured.violations and trial.task_scores for trial in infeasible)
    best = best_of(trials)
    assert max(trial.task_scores["task"] for trial in infeasible) > best.objective
    # The constrained optimum, by hand: both weights 0.5, where the objective is 1 - 2 * 0.2 ** 2.
    assert best.objective == pytest.approx(0.92, abs=0.02)
    assert best.measured.constraints["total"] <= 1.0


def test_the_optimizer_hears_feasible_above_infeasible_and_those_by_violation(tmp_path):
    _, trials = search(tmp_path, Constrained(fail=lambda number: number == 9), evaluations=40)
    told = {trial.number: trial.fitness for trial in trials if trial.kind is Kind.CANDIDATE}
    feasible = [told[trial.number] for trial in trials if trial.state is State.COMPLETE and trial.number in told]
    outside = {
        told[t.number]: t.measured.violations["total"] for t in trials if t.measured.violations and t.number in told
    }
    assert len(outside) > 1
    assert min(feasible) > max(outside)
    assert [outside[fitness] for fitness in sorted(outside)] == sorted(outside.values(), reverse=True)
    assert told[9] is None


def test_the_journal_keeps_what_was_outside_and_a_resumed_search_goes_on_the_same(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    _, whole = search(tmp_path / "whole", Constrained(), evaluations=30)
    with pytest.raises(Killed):
        search(tmp_path / "killed", Constrained(die_after=17), evaluations=30)
    _, resumed = search(tmp_path / "killed", Constrained(), evaluations=30)
    assert resumed == whole
    assert Journal.open(str(tmp_path / "killed" / "journal.log")).trials() == whole


def test_a_search_without_a_feasible_candidate_ends_by_its_budget_and_has_no_best(tmp_path):
    reason, trials = search(tmp_path, Constrained(only=True), evaluations=12)
    assert reason == "evaluations"
    assert best_of(trials) is None


def test_cma_needs_only_the_order_of_what_it_is_told():
    problem = SearchProblem((0.5, 0.5), (0.2, 0.2), (0, 0), seed=3, population_size=4)
    told_violations, told_numbers = (create_optimizer("cma", problem) for _ in range(2))
    for _ in range(3):
        vectors = told_violations.ask()
        assert told_numbers.ask() == vectors
        told_violations.tell(vectors, [0.5, rank_value(0.3), 0.9, rank_value(0.2)])
        told_numbers.tell(vectors, [0.5, -2.0, 0.9, -1.0])
    assert told_violations.ask() == told_numbers.ask()


def test_a_scale_set_by_the_parents_holds_for_the_parents_too_and_is_found_again_on_resuming(tmp_path_factory):
    whole = search(
        tmp_path_factory.mktemp("whole"),
        FakeEvaluator(),
        objective_function=objective_of("task", normalize="parents"),
        evaluations=12,
    )
    assert [trial.objective for trial in whole[1][:2]] == [0.0, 0.0]
    killed = tmp_path_factory.mktemp("killed")
    deaths = (1, 1, 2, 5)
    for death in deaths:
        with pytest.raises(Killed):
            search(
                killed,
                FakeEvaluator(die_after=death),
                objective_function=objective_of("task", normalize="parents"),
                evaluations=12,
            )
    evaluator = FakeEvaluator()
    resumed = search(killed, evaluator, objective_function=objective_of("task", normalize="parents"), evaluations=12)
    assert table(resumed[1]) == table(whole[1])
    assert len(evaluator.scored) == 12 + 3 - sum(deaths)  # the parents, too, were scored once


def test_references_that_are_judged_together_may_fail(tmp_path):
    evaluator = FakeEvaluator(fail=lambda number: number == 1)
    _, trials = search(tmp_path, evaluator, objective_function=objective_of("task", normalize="parents"), evaluations=4)
    assert [trial.state for trial in trials[:3]] == [State.COMPLETE, State.FAILED, State.COMPLETE]
    assert trials[1].measured.failure == "out of luck"


class TwoTasks(FakeEvaluator):
    """Each task wants another weight to be high."""

    def evaluation(self, request):
        weights = [entry.get("parameters", {}).get("weight", 1.0) for entry in request.recipe["models"]]
        pair = [1.0 - (weights[0] - 0.2) ** 2 - weights[-1] ** 2, 1.0 - (weights[0] - 0.9) ** 2 - weights[-1] ** 2]
        return Evaluation(request.number, scores={f"task{n}": {0: value} for n, value in enumerate(pair)})


def two_objectives():
    return objective_of("task0", "task1", objectives=[["task0"], ["task1"]], optimizer={"name": "nsga2"})


@pytest.mark.parametrize("optimizer", ["tpe", "nsga2"])
def test_several_objectives_are_kept_apart_and_a_killed_search_goes_on_the_same(tmp_path_factory, optimizer):
    settings = {"objective_function": two_objectives(), "evaluations": 40}
    whole = search(tmp_path_factory.mktemp("whole"), TwoTasks(), optimizer, **settings)
    for trial in whole[1]:
        assert trial.objective_values == trial.fitness == (trial.task_scores["task0"], trial.task_scores["task1"])
        assert trial.objective == pytest.approx(sum(trial.objective_values) / 2)
    killed = tmp_path_factory.mktemp("killed")
    for deaths in (2, 9, 13):
        with pytest.raises(Killed):
            search(killed, TwoTasks(die_after=deaths), optimizer, **settings)
    resumed = search(killed, TwoTasks(), optimizer, **settings)
    assert resumed[1] == whole[1]
    assert Journal.open(str(killed / "journal.log")).trials() == whole[1]
    spread = [trial.recipe["models"][0]["parameters"]["weight"] for trial in pareto_front(whole[1][3:])]
    assert max(spread) - min(spread) > 0.2


class ConstrainedTwoTasks(TwoTasks):
    """The first weight may be 0.5 at most."""

    def evaluation(self, request):
        outside = max(request.recipe["models"][0].get("parameters", {}).get("weight", 1.0) - 0.5, 0.0)
        return replace(super().evaluation(request), violations={"first": outside} if outside else {})


@pytest.mark.parametrize("optimizer", ["tpe", "nsga2"])
def test_with_several_objectives_the_infeasible_are_below_in_all_and_not_on_the_front(tmp_path, optimizer):
    settings = {"objective_function": two_objectives(), "evaluations": 160, "population": 16}
    _, trials = search(tmp_path, ConstrainedTwoTasks(), optimizer, **settings)
    candidates = [trial for trial in trials if trial.kind is Kind.CANDIDATE]
    infeasible = sorted(
        (t for t in candidates if t.measured.violations), key=lambda trial: trial.measured.violations["first"]
    )
    feasible = [trial for trial in candidates if not trial.measured.violations]
    assert all(trial.objective_values == () and len(set(trial.fitness)) == 1 for trial in infeasible)
    lowest = min(min(trial.fitness) for trial in feasible)
    outside = [trial.fitness[0] for trial in infeasible]
    assert lowest > outside[0]
    assert outside == sorted(outside, reverse=True)
    front = pareto_front(candidates)
    assert front
    assert all(trial.state is State.COMPLETE for trial in front)
    halves = [sum(bool(trial.measured.violations) for trial in half) for half in (candidates[:48], candidates[-48:])]
    assert halves[1] < halves[0]  # it has learnt to stay inside


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return search(tmp_path_factory.mktemp("whole"), FakeEvaluator(), evaluations=12)


@pytest.mark.parametrize("normalize", ["none", "parents"])
def test_references_that_failed_are_tried_again(tmp_path, normalize):
    function = objective_of("task", normalize=normalize)
    with pytest.raises(SearchError, match="no parent could be scored"):
        search(
            tmp_path,
            FakeEvaluator(fail=lambda number: True),
            objective_function=function,
            evaluations=12,
        )
    evaluator = FakeEvaluator()
    _, trials = search(
        tmp_path, evaluator, objective_function=objective_of("task", normalize=normalize), evaluations=12
    )
    assert all(trial.state is State.COMPLETE for trial in trials)
    assert len(evaluator.scored) == 15


@pytest.mark.parametrize("tries", [1, 3])
def test_a_search_all_of_whose_candidates_failed_goes_on_as_if_they_never_had(tmp_path, whole, tries):
    for _ in range(tries):
        with pytest.raises(SearchError, match="all 4 candidates failed"):
            search(tmp_path, FakeEvaluator(fail=lambda number: number > 2), evaluations=12)
    evaluator = FakeEvaluator()
    reason, trials = search(tmp_path, evaluator, evaluations=12)
    assert (reason, table(trials)) == (whole[0], table(whole[1]))
    assert sorted(evaluator.scored) == list(range(3, 15))  # the references were scored, and are not again
    assert Journal.open(str(tmp_path / "journal.log")).trials() == trials


def second_batch(number):
    return 7 <= number <= 10


def test_a_batch_that_fails_as_a_whole_for_what_may_be_mended_ends_the_run_and_is_tried_again(tmp_path, whole):
    with pytest.raises(SearchError, match="4 candidates failed one after the other, the last with: out of luck"):
        search(tmp_path, FakeEvaluator(fail=second_batch, unforeseen=True), evaluations=12)
    assert table(search(tmp_path, FakeEvaluator(), evaluations=12)[1]) == table(whole[1])


def test_a_batch_that_fails_as_a_whole_twice_is_told_and_the_search_goes_on(tmp_path):
    with pytest.raises(SearchError):
        search(tmp_path, FakeEvaluator(fail=second_batch, unforeseen=True), evaluations=12)
    _, trials = search(tmp_path, FakeEvaluator(fail=second_batch, unforeseen=True), evaluations=12)
    failed = [trial.number for trial in trials if trial.state is State.FAILED]
    assert failed == [7, 8, 9, 10]
    assert len(trials) == 15


def test_a_batch_whose_candidates_all_fail_by_themselves_ends_nothing(tmp_path):
    _, trials = search(tmp_path, FakeEvaluator(fail=second_batch), evaluations=12)
    assert len(trials) == 15


def test_what_was_tried_again_stays_as_it_then_was(tmp_path, whole):
    with pytest.raises(SearchError):
        search(tmp_path, FakeEvaluator(fail=lambda number: number > 2), evaluations=12)
    search(tmp_path, FakeEvaluator(), evaluations=12)
    evaluator = FakeEvaluator()
    assert table(search(tmp_path, evaluator, evaluations=12)[1]) == table(whole[1])
    assert evaluator.scored == []
