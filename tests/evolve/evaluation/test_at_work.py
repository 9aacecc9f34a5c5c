"""What workers are at is told as requests are taken, and forgotten as they are answered."""

from __future__ import annotations

from evolve.evaluation.at_work import AtWork
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.trials.events import WorkBegun
from evolve.trials.trial import Evaluation


class TwoWorkers:
    """Takes a second request before it answers the first."""

    workers = 2

    def evaluate(self, requests):
        taken = []
        for request in requests:
            taken.append(request)
            if len(taken) == 2:
                yield Evaluation(taken.pop(0).number)
        for request in taken:
            yield Evaluation(request.number)

    def differentiate(self, requests):
        for request in requests:
            yield Slopes(request.number)


def test_every_request_is_told_with_what_is_still_without_an_answer():
    told: list[WorkBegun] = []
    at_work = AtWork(TwoWorkers(), told.append)
    requests = [Request(number, {}, {}, label=f"candidate {number}") for number in range(3)]
    assert [found.number for found in at_work.evaluate(requests)] == [0, 1, 2]
    assert [event.labels for event in told] == [
        ("candidate 0",),
        ("candidate 0", "candidate 1"),
        ("candidate 1", "candidate 2"),
    ]
    assert at_work.labels == ()


def test_what_a_caller_left_behind_is_not_told_to_the_next():
    told: list[WorkBegun] = []
    at_work = AtWork(TwoWorkers(), told.append)
    next(at_work.evaluate(Request(number, {}, {}, label=f"candidate {number}") for number in range(3)))
    list(at_work.differentiate([GradientRequest(0, {}, {}, {}, 1.0)]))
    assert told[-1].labels == ("a step of the gradient",)
