"""The rules of a pool, with workers that end on demand and no process: who is to blame, and when it gives up."""

from __future__ import annotations

from collections import deque

import pytest

from evolve.evaluation import worker_pool
from evolve.evaluation.crew import Report
from evolve.evaluation.request import Request
from evolve.evaluation.unavailable import UnsoundEngineError, WorkersUnavailableError
from evolve.evaluation.worker_pool import WorkerPool
from evolve.problems import ConfigError
from evolve.trials.trial import Evaluation


class FakeCrew:
    """Answers at once, in the order of asking; `behaviour(worker, argument)` is an answer, an exception or a death.

    Attributes:
        starts: workers, in the order of their starts.
        asked: worker and argument, in the order of asking.
    """

    def __init__(self, behaviour, starting=lambda worker: None):
        self.behaviour, self.starting = behaviour, starting
        self.starts, self.asked, self.ended, self.closed = [], [], [], False
        self._reports = deque()
        self._orders = 0

    def start(self, worker):
        self.starts.append(worker)
        return self._report(worker, self.starting(worker))

    def ask(self, worker, method, argument):
        self.asked.append((worker, argument))
        return self._report(worker, self.behaviour(worker, argument))

    def _report(self, worker, found):
        self._orders += 1
        if isinstance(found, Exception):
            self._reports.append(Report(worker, self._orders, error=found))
        elif isinstance(found, Death):
            self._reports.append(Report(worker, self._orders, death=found.why, by_its_machine=found.by_its_machine))
        elif found is not Hangs:
            self._reports.append(Report(worker, self._orders, answer=found))
        return self._orders

    def end(self, worker):
        self.ended.append(worker)

    def wait(self, seconds):
        found, self._reports = list(self._reports), deque()
        return found

    def close(self):
        self.closed = True


class Death:
    def __init__(self, why, by_its_machine=False):
        self.why, self.by_its_machine = why, by_its_machine


class Hangs:
    pass


def scored(worker, request):
    return Evaluation(request.number, total_seconds=worker)


def requests(*numbers, **options):
    return [Request(number, {}, {}, **options) for number in numbers]


def pool_of(count, behaviour, **options):
    notices = []
    crew = FakeCrew(behaviour, **options)
    return WorkerPool(crew, count, notices.append), crew, notices


def test_every_request_is_answered_once():
    pool, crew, _ = pool_of(3, scored)
    assert sorted(found.number for found in pool.evaluate(requests(*range(20)))) == list(range(20))
    assert {worker for worker, _ in crew.asked} == {0, 1, 2}


def test_a_request_is_taken_only_when_a_worker_is_free_for_it():
    pool, _, _ = pool_of(2, scored)
    taken = []

    def source():
        for request in requests(*range(6)):
            taken.append(request.number)
            yield request

    answers = pool.evaluate(source())
    next(answers)
    assert len(taken) == 2


def test_none_makes_a_worker_wait_until_another_is_done():
    pool, _, _ = pool_of(2, scored)
    first, second = requests(0, 1)
    assert [found.number for found in pool.evaluate(iter([first, None, second]))] == [0, 1]


def test_a_candidate_at_which_every_worker_ends_is_to_blame_and_the_rest_goes_on():
    pool, crew, notices = pool_of(
        2, lambda worker, request: Death("killed") if request.number == 2 else scored(worker, request)
    )
    found = {answer.number: answer.failure for answer in pool.evaluate(requests(*range(8)))}
    assert {number for number, failure in found.items() if failure} == {2}
    assert found[2] == "3 workers ended at it: killed"
    assert len(crew.starts) == 2 + 3
    assert "trial 2" in notices[0]


def test_where_every_worker_ends_at_everything_the_pool_gives_up_after_a_few_starts():
    pool, crew, _ = pool_of(2, lambda worker, request: Death(f"killed at {request.number}"))
    with pytest.raises(WorkersUnavailableError, match=r"3 workers in a row .* 3 different candidates: killed at 0"):
        list(pool.evaluate(requests(*range(8))))
    assert len(crew.starts) <= 4


def test_a_pool_of_one_tries_another_candidate_before_it_gives_up():
    pool, crew, _ = pool_of(1, lambda worker, request: Death("killed"))
    with pytest.raises(WorkersUnavailableError, match="killed"):
        list(pool.evaluate(requests(0, 1)))
    assert [request.number for _, request in crew.asked] == [0, 1, 0]


def test_workers_that_begin_to_end_at_everything_in_the_middle_of_a_search_stop_it_too():
    pool, _, _ = pool_of(1, lambda worker, request: Death("killed") if request.number > 3 else scored(worker, request))
    found = []
    with pytest.raises(WorkersUnavailableError):
        found.extend(pool.evaluate(requests(*range(8))))
    list(found)


def test_candidates_that_end_workers_do_not_stop_a_search_whose_others_are_scored():
    lethal = {1, 3, 5}
    pool, _, _ = pool_of(
        2, lambda worker, request: Death("killed") if request.number in lethal else scored(worker, request)
    )
    found = {answer.number: answer.failure for answer in pool.evaluate(requests(*range(9)))}
    assert {number for number, failure in found.items() if failure} == lethal


def test_a_worker_that_cannot_start_is_left_out_and_said():
    pool, _, notices = pool_of(
        2, scored, starting=lambda worker: ConfigError("no such model on this node") if worker == 1 else None
    )
    assert len(list(pool.evaluate(requests(*range(4))))) == 4
    assert notices == ["worker 2 cannot work, 1 of 2 go on: no such model on this node"]


def test_what_no_worker_can_start_with_is_the_users_to_mend():
    crew = FakeCrew(scored, starting=lambda worker: ConfigError(f"no such model on {worker}"))
    with pytest.raises(ConfigError, match="no such model on 0"):
        WorkerPool(crew, 2)
    assert crew.closed


def test_a_worker_that_dies_at_its_start_is_tried_again_and_then_given_up():
    crew = FakeCrew(scored, starting=lambda worker: Death("out of memory"))
    with pytest.raises(WorkersUnavailableError, match="could not start: out of memory"):
        WorkerPool(crew, 1)
    assert crew.starts == [0, 0, 0]


def test_a_worker_that_takes_too_long_is_killed_and_after_the_second_it_is_the_candidate(monkeypatch):
    clock = iter(range(0, 10**6, 7))
    monkeypatch.setattr(worker_pool.time, "monotonic", lambda: next(clock))
    pool, crew, _ = pool_of(1, lambda worker, request: Hangs if request.number == 1 else scored(worker, request))
    found = {answer.number: answer.failure for answer in pool.evaluate(requests(0, 1, 2, time_limit=100))}
    assert found == {0: None, 1: "2 workers ended at it: it gave no answer within 100 seconds", 2: None}
    assert crew.ended == [0, 0]


def test_answers_for_a_caller_who_left_are_not_given_to_the_next():
    pool, _, _ = pool_of(2, scored)
    leaving = pool.evaluate(requests(0, 1, 2))
    next(leaving)
    leaving.close()
    assert sorted(found.number for found in pool.evaluate(requests(10, 11))) == [10, 11]


def failed(worker, request):
    return Evaluation(request.number, failure=f"worker {worker} has no memory left", unforeseen=True)


def test_what_one_worker_cannot_score_another_is_asked():
    pool, crew, notices = pool_of(
        2, lambda worker, request: (failed if worker == 0 and request.number == 2 else scored)(worker, request)
    )
    assert all(answer.failure is None for answer in pool.evaluate(requests(*range(6))))
    assert {worker for worker, request in crew.asked if request.number == 2} in ({0, 1}, {1})
    assert notices == []


def test_what_no_worker_can_score_is_the_candidates_failure():
    pool, crew, notices = pool_of(
        3, lambda worker, request: (failed if request.number == 2 else scored)(worker, request)
    )
    found = {answer.number: answer.failure for answer in pool.evaluate(requests(*range(6)))}
    assert {number for number, failure in found.items() if failure} == {2}
    assert sum(request.number == 2 for _, request in crew.asked) == 2
    assert notices == []


def test_a_worker_that_fails_at_what_others_score_is_replaced_and_in_the_end_left_out():
    pool, crew, notices = pool_of(2, lambda worker, request: (failed if worker == 0 else scored)(worker, request))
    assert all(answer.failure is None for answer in pool.evaluate(requests(*range(40))))
    assert crew.starts.count(0) == 3
    assert notices[-1] == "worker 1 cannot work, 1 of 2 go on: it fails at what others can score"
    assert crew.asked[-1][0] == 1


def test_a_foreseen_failure_is_not_asked_again():
    pool, crew, _ = pool_of(2, lambda worker, request: Evaluation(request.number, failure="cannot be merged"))
    assert len(list(pool.evaluate(requests(*range(6))))) == len(crew.asked) == 6


def test_workers_that_are_killed_together_are_replaced():
    pool, crew, notices = pool_of(
        4, lambda worker, request: Death("killed") if len(crew.asked) in range(9, 13) else scored(worker, request)
    )
    assert all(answer.failure is None for answer in pool.evaluate(requests(*range(20))))
    assert len(crew.starts) == 8
    assert len(notices) == 4


def test_a_node_that_leaves_is_no_candidates_fault():
    deaths = 30
    pool, crew, _ = pool_of(
        4,
        lambda worker, request: (
            Death("its node is gone", by_its_machine=True) if len(crew.asked) <= deaths else scored(worker, request)
        ),
    )
    assert all(answer.failure is None for answer in pool.evaluate(requests(*range(6))))
    assert len(crew.starts) == 4 + deaths


def test_an_unsound_engine_ends_the_pool_at_once_since_the_others_are_of_the_same_version():
    pool, crew, _ = pool_of(3, lambda worker, request: UnsoundEngineError("answers otherwise"))
    with pytest.raises(WorkersUnavailableError, match="answers otherwise"):
        list(pool.evaluate(requests(*range(9))))
    assert len(crew.starts) == 3
