"""Searches on shared workers: the same answers as on their own, and nothing is answered twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from zoo_requests import settings

from evolve.config.machines import RayConfig, WorkersConfig
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.shared_workers import SharedWorkers
from evolve.evaluation.worker import WorkerSettings
from evolve.trials.trial import Evaluation

ONE = WorkersConfig(count=1)
LOCAL = RayConfig()


class Counting:
    """Answers with what is asked, and counts."""

    workers = 2

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.closed = False

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        for request in filter(None, requests):
            self.asked.append(request)
            failure = "no" if request.recipe.get("fails") else None
            yield Evaluation(request.number, scores={"task": {1: request.recipe["value"]}}, failure=failure)

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        for request in requests:
            self.asked.append(request)
            yield Slopes(request.number, probabilities={"task": {1: request.recipe["value"]}})

    def fingerprint(self, recipe: Any) -> str:
        return str(recipe)

    def close(self) -> None:
        self.closed = True


def shared() -> tuple[SharedWorkers, list[Counting]]:
    started: list[Counting] = []

    def start(*_: object) -> Counting:
        started.append(Counting())
        return started[-1]

    return SharedWorkers(start), started


def request(number: int, value: float, **more: Any) -> Request:
    return Request(number, {"value": value, **more}, {"task": (1,)}, time_limit=float(number))


def values(answers: Iterable[Evaluation]) -> dict[int, Any]:
    return {answer.number: answer.scores["task"][1] for answer in answers}


def test_the_next_search_is_answered_from_what_the_first_asked() -> None:
    workers, started = shared()
    first = workers.open(settings(), ONE, LOCAL)
    assert values(first.evaluate([request(0, 0.1), request(1, 0.2)])) == {0: 0.1, 1: 0.2}
    first.close()
    second = workers.open(settings(), ONE, LOCAL)
    assert values(second.evaluate([request(5, 0.2), None, request(6, 0.3), request(7, 0.1)])) == {
        5: 0.2,
        6: 0.3,
        7: 0.1,
    }
    assert len(started) == 1
    assert not started[0].closed
    assert len(started[0].asked) == 3
    workers.close()
    assert started[0].closed


def test_gradients_are_answered_once_too_and_in_any_numbering() -> None:
    workers, started = shared()
    asked = [GradientRequest(number, {"value": 0.1 * number}, {"task": (1,)}, {"task": 1.0}, 0.25) for number in (1, 2)]
    first = list(workers.open(settings(), ONE, LOCAL).differentiate(asked))
    again = list(
        workers.open(settings(), ONE, LOCAL).differentiate(replace(one, number=one.number + 7) for one in asked)
    )
    assert [(slopes.number - 7, slopes.probabilities) for slopes in again] == [
        (slopes.number, slopes.probabilities) for slopes in first
    ]
    assert len(started[0].asked) == 2


@pytest.mark.parametrize("change", [{"seed": 1}, {"models": ("other",)}])
def test_workers_of_other_settings_are_others(change: dict[str, Any]) -> None:
    workers, started = shared()
    list(workers.open(settings(), ONE, LOCAL).evaluate([request(0, 0.1)]))
    other: WorkerSettings = replace(settings(), **change)
    list(workers.open(other, ONE, LOCAL).evaluate([request(0, 0.1)]))
    assert [len(one.asked) for one in started] == [1, 1]
    assert [one.closed for one in started] == [True, False]


def test_searches_over_other_methods_have_the_same_workers() -> None:
    workers, started = shared()
    for method in ("ties", "della"):
        workers.open(replace(settings(), methods=(method,)), ONE, LOCAL)
    assert len(started) == 1


def test_a_failure_is_tried_again_and_other_items_are_another_question() -> None:
    workers, started = shared()
    for _ in range(2):
        lent = workers.open(settings(), ONE, LOCAL)
        assert [answer.failure for answer in lent.evaluate([request(0, 0.1, fails=True)])] == ["no"]
    list(lent.evaluate([request(1, 0.2), replace(request(2, 0.2), items={"task": (1, 2)})]))
    assert len(started[0].asked) == 4
