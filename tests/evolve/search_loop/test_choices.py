"""Every choice is scored once before an optimizer may give one up."""

from __future__ import annotations

import pytest
from made_up_search import Killed, MeanTask, open_search

from evolve.config.schema import SearchConfig
from evolve.search_loop.choices import choice_points, score_choices
from evolve.search_loop.objective import ObjectiveFunction
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.trial import Evaluation, State

METHODS = ["ties", "dare_ties", "linear"]
RECIPE = {
    "merge_method": {"choices": METHODS},
    "base_model": "base",
    "models": [
        {"model": "a", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
        {"model": {"choices": ["b", "c"]}, "parameters": {"weight": 0.5}},
    ],
}
SPACE = RecipeSpace.from_template(Template.read(RECIPE), layer_count=2)
START = [0.5, 0.25, 0.75]  # dare_ties; a's weight; c


class FakeEvaluator:
    """`linear` is best."""

    workers = 1

    def __init__(self, die_after=None):
        self.die_after, self.methods = die_after, []

    def evaluate(self, requests):
        for request in requests:
            if len(self.methods) == self.die_after:
                raise Killed
            self.methods.append(request.recipe["merge_method"])
            score = float(METHODS.index(self.methods[-1]))
            yield Evaluation(request.number, scores={"task": dict.fromkeys(request.items["task"], score)})


def search(path, evaluator, evaluations):
    config = SearchConfig(recipe=RECIPE, tasks=[{"name": "task"}])
    function = ObjectiveFunction([MeanTask()], config, None)
    return open_search(path, evaluator, function, {"task": (1, 2)}, space=SPACE, evaluations=evaluations)


def test_every_choice_of_every_gene_is_there_once_and_numbers_stay():
    points = choice_points(SPACE, START)
    recipes = [SPACE.decode(vector) for vector in points.values()]
    assert [recipe["merge_method"] for recipe in recipes] == ["dare_ties", "linear", "ties"]  # the start's first
    assert [recipe["models"][1]["model"] for recipe in recipes] == ["c", "b", "c"]
    assert {recipe["models"][0]["parameters"]["weight"] for recipe in recipes} == {0.25}
    assert list(points) == ["start with dare_ties, c", "start with linear, b", "start with ties, c"]


def test_without_choices_there_is_nothing_to_try():
    space = RecipeSpace.from_template(
        Template.read({**RECIPE, "merge_method": "ties", "models": RECIPE["models"][:1]}), 2
    )
    assert choice_points(space, [0.5]) == {}


@pytest.mark.parametrize("die_after", [0, 1, 2, 3])
def test_killed_anywhere_it_is_the_same(tmp_path, die_after):
    if die_after < 3:
        with pytest.raises(Killed):
            score_choices(search(tmp_path, FakeEvaluator(die_after), 9), START)
    made = search(tmp_path, FakeEvaluator(), 9)
    # What is scored by now would begin elsewhere: the search stays where it was begun.
    assert score_choices(made, START if die_after in (0, 3) else [0.9, 0.1, 0.1]) is None
    assert [trial.recipe["merge_method"] for trial in made.trials] == ["dare_ties", "linear", "ties"]
    assert {trial.genes["weight[a]"] for trial in made.trials} == {0.25}
    assert all(trial.state is State.COMPLETE for trial in made.trials)


def test_more_choices_than_candidates_are_not_tried_and_it_is_said(tmp_path, capsys):
    made = search(tmp_path, FakeEvaluator(), 2)
    assert score_choices(made, START) is None
    assert not made.trials
    assert "3 choices are more than 2 candidates can try" in capsys.readouterr().err
