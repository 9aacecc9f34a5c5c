"""How long a request may take: as the file says, or learnt."""

from __future__ import annotations

import pytest

from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.time_limit import FIRST_SECONDS, LEAST_SECONDS, TIMES_THE_SLOWEST, TimeLimited
from evolve.trials.trial import Evaluation


class Answers:
    """Takes so many seconds for an item, by its own account."""

    workers = 3

    def __init__(self, *seconds_per_item):
        self._seconds = iter(seconds_per_item)
        self.limits = []

    def evaluate(self, requests):
        for request in filter(None, requests):
            self.limits.append(request.time_limit)
            items = request.items["task"]
            seconds = next(self._seconds)
            if seconds is None:
                yield Evaluation(request.number, failure="out of luck", total_seconds=1e6)
            else:
                yield Evaluation(
                    request.number, {"task": dict.fromkeys(items, 1.0)}, total_seconds=seconds * len(items)
                )

    def differentiate(self, requests):
        for request in requests:
            self.limits.append(request.time_limit)
            yield Slopes(request.number)


def request(items):
    return Request(0, {}, {"task": tuple(range(items))})


def test_it_is_learnt_from_the_slowest_item_for_item_and_failures_teach_nothing():
    answers = Answers(30.0, None, 20.0, 1.0)
    timed = TimeLimited(answers, "auto")
    assert timed.workers == 3
    list(timed.evaluate([request(10), None, request(10), request(40), request(1)]))
    assert answers.limits == [
        FIRST_SECONDS,
        TIMES_THE_SLOWEST * 30.0 * 10,
        TIMES_THE_SLOWEST * 30.0 * 40,
        LEAST_SECONDS,
    ]


def test_a_step_has_three_times_as_long():
    answers = Answers(30.0)
    timed = TimeLimited(answers, "auto")
    list(timed.evaluate([request(10)]))
    list(timed.differentiate([GradientRequest(0, {}, {"task": (1, 2, 3, 4)}, {}, 1.0)]))
    assert answers.limits[-1] == TIMES_THE_SLOWEST * 30.0 * 12


@pytest.mark.parametrize(("setting", "limit"), [(7.5, 7.5), ("none", None)])
def test_as_the_file_says(setting, limit):
    answers = Answers(1.0, 1000.0)
    list(TimeLimited(answers, setting).evaluate([request(1), request(9)]))
    assert answers.limits == [limit, limit]
