"""A budget of item evaluations: what fits is begun, and what was spent is what a counting evaluator was asked."""

from __future__ import annotations

import contextlib
import heapq
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_search import Killed, MeanTask, open_search

from evolve.config.schema import SearchConfig
from evolve.config.strategy import BudgetConfig
from evolve.evaluation.request import GradientRequest, Slopes
from evolve.optimizers import SearchProblem, create_optimizer
from evolve.search_loop.item_budget import ItemBudget
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.races import Races
from evolve.search_loop.references import reference_trials
from evolve.search_loop.start import candidates_within
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.events import StopReason
from evolve.trials.spending import Purpose, of_the_search
from evolve.trials.trial import Evaluation, Kind

STEPPED = {"low": 0.0, "high": 1.0, "step": 0.125}  # so that recipes come again; there are 81 of them
TEMPLATE = {
    "merge_method": "linear",
    "models": [{"model": name, "parameters": {"weight": STEPPED}} for name in ("a", "b")],
}
SPACE = RecipeSpace.from_template(Template.read(TEMPLATE), layer_count=2)
ITEMS = {"one": tuple(range(40)), "two": tuple(range(100, 120))}
LOOK = {"one": tuple(range(10)), "two": (100, 101)}
DIFFICULTY = {(name, item): random.Random(f"{name}{item}").random() for name, ids in ITEMS.items() for item in ids}
EACH = 60  # items of a candidate
REFERENCES = 3


class Counting:
    """Workers side by side in made-up time, which count the items that they are asked for."""

    def __init__(self, workers=1, speed_seed=0, die_after=None):
        self.workers, self._die_after = workers, die_after
        self._random = random.Random(speed_seed)
        self.items = 0
        self.asked = {}  # trial -> items

    def evaluate(self, requests):
        return self._side_by_side(requests, self._score)

    def differentiate(self, requests):
        return self._side_by_side(requests, self._slopes)

    def _side_by_side(self, requests, answer):
        requests, now, running = iter(requests), 0.0, []
        while True:
            while len(running) < self.workers and (request := next(requests, None)) is not None:
                heapq.heappush(running, (now + self._random.expovariate(1.0), self._random.random(), request))
            if not running:
                return
            now, _, request = heapq.heappop(running)
            if self._die_after is not None:
                self._die_after -= 1
                if self._die_after < 0:
                    raise Killed
            yield answer(request)

    def _score(self, request):
        weights = [entry.get("parameters", {}).get("weight", 1.0) for entry in request.recipe["models"]]
        quality = 1.0 - sum((weight - 0.7) ** 2 for weight in weights)
        scores = {
            name: {item: float(quality > DIFFICULTY[name, item]) for item in ids} for name, ids in request.items.items()
        }
        count = sum(map(len, request.items.values()))
        self.items += count
        self.asked[request.number] = self.asked.get(request.number, 0) + count
        return Evaluation(request.number, scores=scores)

    def _slopes(self, request):
        self.items += 3 * sum(map(len, request.items.values()))
        return Slopes(request.number, probabilities={"one": {0: 0.5}})


POINTS = {"low": (0.3, 0.3), "high": (0.8, 0.8)}


def search(path, evaluator, *, raced=False, steady=False, opens=False, seed=3, **budget):
    """A search that looks, steps and scores points first where it `opens` so."""
    config = SearchConfig(recipe=TEMPLATE, tasks=[{"name": name} for name in ITEMS])
    function = ObjectiveFunction([MeanTask(name) for name in ITEMS], config, None)
    made = open_search(path, evaluator, function, ITEMS, space=SPACE, **budget)
    references = reference_trials(SPACE, SPACE.template, mergeable=True)
    reason = opening(made, references) if opens else made.score_references(references)
    if reason is None:
        if raced:
            made.race_with(Races(made.journal, ITEMS, lambda: function.item_fitness(ITEMS), 0.9, None, seed=1))
        problem = SearchProblem((0.5, 0.5), (0.3, 0.3), (0, 0), seed=seed, population_size=8, steady_state=steady)
        reason = made.run(create_optimizer("cma", problem), steady_state=steady)
    return reason, made


def opening(made, references):
    made.begin_references(references)
    recipes = [SPACE.decode(vector) for vector in POINTS.values()]
    step = GradientRequest(0, recipes[0], LOOK, {}, 1.0)
    for ask in (
        lambda: made.look({trial.label: trial.recipe for trial in references}, LOOK),
        lambda: made.look(dict(zip("abcdefgh", recipes, strict=False)), LOOK),
        lambda: made.replay.differentiate([step, step], lambda place, slopes: [0.0, 0.0]),
    ):
        if isinstance(answer := ask(), StopReason):
            return answer
    return made.score_points(POINTS) or made.score_references(references)


def table(trials):
    return [(trial.number, trial.label, trial.vector, trial.fitness) for trial in trials]


MODES = {
    "generations": {},
    "races": {"raced": True},
    "steady state": {"steady": True},
    "an opening": {"opens": True},
    "an opening and races": {"opens": True, "raced": True},
}
BOUNDED = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.lists(st.integers(0, 9)), st.integers(0, 30), st.integers(0, 30), st.none() | st.integers(0, 60))
def test_there_is_room_for_the_longest_beginning_that_fits(most, spent, reserved, limit):
    room = ItemBudget(limit, reserved).room(most, spent)
    fits = [k for k in range(1, len(most) + 1) if limit is None or spent + reserved + sum(most[:k]) <= limit]
    assert room == max(fits, default=0)


@pytest.mark.parametrize("mode", MODES)
@BOUNDED
@given(items=st.integers(1, 1200), seed=st.integers(0, 3))
def test_the_budget_is_never_exceeded_and_what_was_spent_is_what_was_asked(tmp_path_factory, mode, items, seed):
    path, evaluator = tmp_path_factory.mktemp("run"), Counting()
    reason, made = search(path, evaluator, items=items, seed=seed, **MODES[mode])
    assert reason == "items"
    assert evaluator.items <= items
    assert of_the_search(made.spent()) == of_the_search(made.journal.spent) == evaluator.items


@pytest.mark.parametrize("mode", MODES)
@BOUNDED
@given(items=st.integers(1, 1200), deaths=st.lists(st.integers(0, 12), max_size=3), workers=st.sampled_from([1, 3]))
def test_killed_and_resumed_the_same_was_asked_once(tmp_path_factory, mode, items, deaths, workers):
    whole = Counting(workers)
    expected = search(tmp_path_factory.mktemp("whole"), whole, items=items, **MODES[mode])
    path, asked = tmp_path_factory.mktemp("killed"), 0
    for death in deaths:
        evaluator = Counting(workers, speed_seed=death, die_after=death)
        with contextlib.suppress(Killed):
            search(path, evaluator, items=items, **MODES[mode])
        asked += evaluator.items
    last = Counting(workers, speed_seed=7)
    reason, made = search(path, last, items=items, **MODES[mode])
    assert (reason, table(made.trials)) == (expected[0], table(expected[1].trials))
    assert of_the_search(made.journal.spent) == asked + last.items == whole.items


@pytest.mark.parametrize("mode", ["generations", "races", "an opening", "an opening and races"])
@pytest.mark.parametrize("items", [150, 1111])
def test_the_number_of_workers_changes_neither_trials_nor_where_it_ends(tmp_path_factory, mode, items):
    runs = [
        search(tmp_path_factory.mktemp("run"), Counting(workers, speed_seed=workers), items=items, **MODES[mode])
        for workers in (1, 3, 5)
    ]
    assert len({(reason, str(table(made.trials)), str(made.spent())) for reason, made in runs}) == 1


@pytest.mark.parametrize("items", [600, 1111])
def test_in_steady_state_the_end_does_not_depend_on_which_worker_is_faster(tmp_path_factory, items):
    runs = [
        search(tmp_path_factory.mktemp("run"), Counting(3, speed_seed), items=items, steady=True)
        for speed_seed in range(4)
    ]
    assert len({(reason, str(table(made.trials)), str(made.spent())) for reason, made in runs}) == 1
    assert of_the_search(runs[0][1].spent()) <= items


@pytest.mark.parametrize("steady", [False, True])
def test_only_what_does_not_fit_is_left_undone(tmp_path, steady):
    candidates = 5
    budget = EACH * (REFERENCES + candidates) + EACH - 1
    reason, made = search(tmp_path, Counting(), items=budget, steady=steady)
    new = [trial for trial in made.trials if trial.kind is Kind.CANDIDATE and trial.measured.new_items]
    assert reason == "items"
    assert len(new) == candidates
    assert made.spent()[Purpose.CANDIDATES] == EACH * candidates


def test_references_looks_and_steps_are_begun_all_or_none(tmp_path_factory):
    def spent(items):
        return search(tmp_path_factory.mktemp("run"), Counting(), items=items, opens=True)[1].spent()

    look = sum(map(len, LOOK.values()))
    assert not any(spent(REFERENCES * look - 1).values())
    assert spent(REFERENCES * look)[Purpose.LOOKS] == REFERENCES * look
    looks = (REFERENCES + 2) * look
    assert spent(looks + 6 * look - 1)[Purpose.STEPS] == 0
    assert spent(looks + 6 * look)[Purpose.STEPS] == 6 * look
    evaluator = Counting()
    assert search(tmp_path_factory.mktemp("run"), evaluator, items=REFERENCES * EACH - 1)[0] == "items"
    assert evaluator.items == 0


@pytest.mark.parametrize("mode", MODES)
def test_with_a_raised_budget_it_goes_on(tmp_path_factory, mode):
    whole = search(tmp_path_factory.mktemp("whole"), Counting(), items=1100, **MODES[mode])
    path = tmp_path_factory.mktemp("raised")
    for items in (250, 700):
        search(path, Counting(), items=items, **MODES[mode])
    reason, made = search(path, Counting(), items=1100, **MODES[mode])
    assert reason == whole[0]
    assert of_the_search(made.spent()) > 700
    if "races" not in mode:  # part of a batch is scored whole, so that what is raced depends on where a budget ended
        assert table(made.trials) == table(whole[1].trials)


@pytest.mark.parametrize(
    ("budget", "spent", "candidates"),
    [
        ({}, 500, None),
        ({"evaluations": 80}, 500, 80),
        ({"items": 1000}, 100, 15),  # 900 items left, 60 a candidate
        ({"items": 1000, "evaluations": 7}, 100, 7),
        ({"items": 1000}, 1200, 0),
    ],
)
def test_an_item_budget_is_a_number_of_candidates(budget, spent, candidates):
    assert candidates_within(BudgetConfig(**budget), EACH, spent) == candidates


def test_a_search_of_which_every_recipe_is_scored_ends_though_the_budget_is_not_spent(tmp_path, monkeypatch):
    monkeypatch.setattr("evolve.search_loop.ending.REPEATS_TO_STOP", 12)
    reason, made = search(tmp_path, Counting(), items=EACH * 200)
    assert reason == "exhausted"
    latest = [trial for trial in made.trials if trial.kind is Kind.CANDIDATE][-12:]
    assert all(trial.measured.new_items == 0 for trial in latest)


def test_a_target_reached_by_the_last_that_fit_is_the_reason(tmp_path):
    reason, _ = search(tmp_path, Counting(), items=EACH * (REFERENCES + 4), target=0.0)
    assert reason == "target"
