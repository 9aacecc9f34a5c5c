"""Of a recipe that was looked at, a trial needs what no look was on."""

from __future__ import annotations

from evolve.search_loop.looks import Looks
from evolve.trials.trial import Evaluation

RECIPE = {"merge_method": "linear"}


def test_a_task_of_which_every_item_was_seen_is_not_asked_again_for_none():
    looks = Looks({"one item": (3,), "several": (1, 2, 5)})
    looks.add(RECIPE, Evaluation(0, scores={"one item": {3: 1.0}, "several": {2: 0.0}}))
    assert looks.unseen(RECIPE) == {"several": (1, 5)}
    whole = looks.completed(RECIPE, Evaluation(0, scores={"several": {1: 1.0, 5: 0.0}}))
    assert whole.scores == {"one item": {3: 1.0}, "several": {1: 1.0, 2: 0.0, 5: 0.0}}
