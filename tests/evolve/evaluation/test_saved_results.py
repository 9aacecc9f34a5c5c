"""What a damaged journal still knows is not scored again."""

from __future__ import annotations

import pytest

from evolve.evaluation.request import Request
from evolve.evaluation.saved_results import SavedResults
from evolve.trials.trial import Evaluation

ITEMS = {"t": (0, 1)}
RECIPES = [{"weight": number} for number in range(5)]


class Counting:
    """Scores whatever it is asked, and waits as a worker does where there is nothing to do."""

    workers = 1

    def __init__(self):
        self.asked = []

    def evaluate(self, requests):
        for request in requests:
            assert request is not None, "waits for nothing"
            self.asked.append(request.number)
            yield Evaluation(request.number, {"t": {0: 1.0, 1: float(request.recipe["weight"])}})


def saved(number, **changes):
    return RECIPES[number], Evaluation(99, {"t": {0: 1.0, 1: float(number)}}, **changes)


def requests():
    return [Request(number, recipe, ITEMS) for number, recipe in enumerate(RECIPES)]


@pytest.mark.parametrize("known", [[], [0], [4], [1, 3], range(5)])
def test_answers_are_the_same_whatever_is_known(known):
    inner = Counting()
    answers = list(SavedResults(inner, [saved(number) for number in known]).evaluate(requests()))
    assert sorted(inner.asked) == [number for number in range(5) if number not in known]
    assert {answer.number: answer.scores for answer in answers} == {
        number: {"t": {0: 1.0, 1: float(number)}} for number in range(5)
    }


def test_a_request_that_waits_for_what_is_known_is_not_waited_for():
    answered = []

    def steady():
        yield requests()[0]
        while not answered:
            yield None
        yield requests()[1]

    for answer in SavedResults(Counting(), [saved(0)]).evaluate(steady()):
        answered.append(answer.number)
    assert answered == [0, 1]


@pytest.mark.parametrize(
    "found",
    [
        saved(0, failure="out of memory"),
        saved(0, reused_items=1),
        (RECIPES[0], Evaluation(0, {"t": {0: 1.0}})),
        (RECIPES[0], Evaluation(0, {"t": {0: 1.0, 1: 0.0, 2: 0.0}})),
    ],
)
def test_what_was_not_scored_on_the_same_items_in_one_piece_is_scored(found):
    inner = Counting()
    list(SavedResults(inner, [found]).evaluate(requests()[:1]))
    assert inner.asked == [0]
