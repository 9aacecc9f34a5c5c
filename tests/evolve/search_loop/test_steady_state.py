"""Steady state: what is asked depends on the lag, never on which worker is faster."""

from __future__ import annotations

import heapq
import random
from threading import Event as Flag

import pytest
from made_up_search import TEMPLATE, Killed, MeanTask, open_search

from evolve.config.schema import SearchConfig
from evolve.evaluation.request import Request
from evolve.optimizers import Optimizer, SearchProblem, create_optimizer
from evolve.search_loop.ending import SearchError
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.steady_state import SteadyState, lag_of
from evolve.trials.events import StopReason
from evolve.trials.journal_lines import JournalError
from evolve.trials.trial import Evaluation


class Pool:
    """Workers side by side in made-up time: every candidate takes as long as a generator says."""

    def __init__(self, workers=1, speed_seed=0, die_after=None, lost=()):
        self.workers, self._die_after, self._lost = workers, die_after, lost
        self._random = random.Random(speed_seed)
        self.most_in_flight = 0
        self.begun = []

    def evaluate(self, requests):
        requests, now, running = iter(requests), 0.0, []
        finished = 0
        while True:
            while len(running) < self.workers and (request := next(requests, None)) is not None:
                assert isinstance(request, Request)
                self.begun.append(request.number)
                heapq.heappush(running, (now + self._random.expovariate(1.0), request.number, request))
            self.most_in_flight = max(self.most_in_flight, len(running))
            if not running:
                return
            now, number, request = heapq.heappop(running)
            if self._die_after is not None and finished >= self._die_after:
                raise Killed
            finished += 1
            if number in self._lost:
                yield Evaluation(number, failure="connection refused", unforeseen=True)
                continue
            weights = [entry["parameters"]["weight"] for entry in request.recipe["models"]]
            yield Evaluation(number, scores={"task": {0: 1.0 - sum((weight - 0.7) ** 2 for weight in weights)}})


def search(path, pool, optimizer="cma", stop=None, **budget):
    config = SearchConfig(recipe=TEMPLATE, tasks=[{"name": "task"}])
    function = ObjectiveFunction([MeanTask()], config, None)
    made = open_search(path, pool, function, {"task": (0,)}, stop=stop, **budget)
    problem = SearchProblem((0.5, 0.5), (0.2, 0.2), (0, 0), seed=3, population_size=4, steady_state=True)
    reason = made.run(create_optimizer(optimizer, problem), steady_state=True)
    return reason, [(trial.number, trial.label, trial.vector, trial.objective) for trial in made.trials]


@pytest.mark.parametrize("optimizer", ["cma", "lra_cma", "tpe", "nsga2"])
def test_which_worker_is_faster_changes_nothing(tmp_path_factory, optimizer):
    runs = []
    for seed in range(3):
        pool = Pool(3, seed)
        runs.append(search(tmp_path_factory.mktemp("run"), pool, optimizer, evaluations=30))
        assert pool.most_in_flight == 3
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][0] == "evaluations"
    assert len(runs[0][1]) == 30


def test_candidates_begin_in_the_order_of_asking_and_no_worker_waits_for_a_generation(tmp_path):
    pool = Pool(4)
    search(tmp_path, pool, evaluations=20)
    assert pool.begun == list(range(20))


@pytest.mark.parametrize("optimizer", ["cma", "tpe"])
def test_a_killed_search_goes_on_the_same_even_with_other_workers(tmp_path_factory, optimizer):
    whole = search(tmp_path_factory.mktemp("whole"), Pool(3), optimizer, evaluations=25)
    killed = tmp_path_factory.mktemp("killed")
    for deaths, workers in ((4, 3), (3, 3), (5, 1)):
        with pytest.raises(Killed):
            search(killed, Pool(workers, deaths, die_after=deaths), optimizer, evaluations=25)
    assert search(killed, Pool(2), optimizer, evaluations=25) == whole


def test_a_search_that_has_lost_its_workers_ends_before_it_is_told_and_goes_on_as_if_it_never_had(tmp_path_factory):
    whole = search(tmp_path_factory.mktemp("whole"), Pool(3), evaluations=25)
    broken = tmp_path_factory.mktemp("broken")
    pool = Pool(3, lost=range(10, 25))
    with pytest.raises(SearchError, match="5 candidates failed one after the other, the last with: connection refused"):
        search(broken, pool, evaluations=25)
    assert max(pool.begun) == 14  # those that were in flight when the first failed, and no other
    assert search(broken, Pool(3, 7), evaluations=25) == whole


def test_candidates_that_are_lost_again_are_told_and_the_search_goes_on(tmp_path):
    with pytest.raises(SearchError):
        search(tmp_path, Pool(3, lost=range(10, 15)), evaluations=25)
    _, trials = search(tmp_path, Pool(3, lost=range(10, 15)), evaluations=25)
    assert [number for number, *_, objective in trials if objective is None] == list(range(10, 15))
    assert len(trials) == 25


@pytest.mark.parametrize(("workers", "again"), [(1, "the last"), (2, "the last 3"), (3, "them")])
def test_it_says_how_many_of_the_lost_are_tried_again(tmp_path, workers, again):
    with pytest.raises(SearchError, match=f"which retries {again}"):
        search(tmp_path, Pool(workers, lost=range(10, 25)), evaluations=25)
    lost = [number for number, *_, objective in search(tmp_path, Pool(workers), evaluations=25)[1] if objective is None]
    assert len(lost) == max(0, 4 - lag_of(workers))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_fewer_losses_than_could_be_anyones_end_nothing(tmp_path, workers):
    _, trials = search(tmp_path, Pool(workers, lost={6, 7, 8, 12}), evaluations=20)
    assert len(trials) == 20


def test_one_worker_has_every_result_before_it_asks(tmp_path):
    told = []

    class Watched(Optimizer):
        name = "watched"

        def __init__(self):
            self.asked = 0

        def ask(self):
            assert len(told) == self.asked
            self.asked += 1
            return [(0.5, 0.1 * (self.asked % 10))]

        def tell(self, vectors, results):
            told.extend(results)

    steady = SteadyState(Watched(), lag_of(1))
    for _ in range(5):
        if steady.due is not None:
            steady.tell(0.5)
        assert steady.ask() is not None
    assert told == [0.5] * 4


def test_an_optimizer_of_batches_is_told_whole_batches():
    """Three a batch, five candidates behind: the second batch is asked for before the first is told."""
    told = []

    class Batches(Optimizer):
        name = "batches"
        asked = 0

        def __init__(self):
            pass

        def ask(self):
            self.asked += 3
            return [(float(self.asked - 3 + place),) for place in range(3)]

        def tell(self, vectors, results):
            told.append((vectors, list(results)))

    steady, given = SteadyState(Batches(), 5), []
    for _ in range(9):
        while steady.due is not None:
            steady.tell(given[steady.due][0])
        given.append(steady.ask())
    assert [vector[0] for vector in given] == list(range(9))
    assert told == [([(0.0,), (1.0,), (2.0,)], [0.0, 1.0, 2.0])]


@pytest.mark.parametrize("bound", [{"target": 0.99}, {"plateau": 9}])
def test_target_and_plateau_end_it_at_the_same_candidate_whoever_is_faster(tmp_path_factory, bound):
    runs = [search(tmp_path_factory.mktemp("run"), Pool(3, seed), **bound) for seed in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][0] == next(iter(bound))


def test_a_raised_budget_goes_on_where_it_ended(tmp_path_factory):
    once, twice = tmp_path_factory.mktemp("once"), tmp_path_factory.mktemp("twice")
    whole = search(once, Pool(3), evaluations=24)
    search(twice, Pool(3, 5), evaluations=9)
    assert search(twice, Pool(3, 6), evaluations=24) == whole


def test_a_soft_stop_finishes_what_is_in_flight(tmp_path):
    stop = Flag()

    class Stopping(Pool):
        def evaluate(self, requests):
            for evaluation in super().evaluate(requests):
                if evaluation.number == 6:
                    stop.set()
                yield evaluation

    reason, trials = search(tmp_path, Stopping(2), stop=stop, evaluations=30)
    assert reason is StopReason.INTERRUPTED
    assert 7 <= len(trials) <= 9
    assert all(objective is not None for *_, objective in trials)


def test_a_grid_ends_when_it_is_all_scored(tmp_path):
    reason, trials = search(tmp_path, Pool(2), "grid", target=2.0)
    assert reason is StopReason.EXHAUSTED
    assert len(trials) == 9


def test_another_optimizer_than_the_journals_is_refused(tmp_path):
    search(tmp_path, Pool(2), evaluations=8)
    with pytest.raises(JournalError, match="another version of the optimizer"):
        search(tmp_path, Pool(2), "tpe", evaluations=8)
