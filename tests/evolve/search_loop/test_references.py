"""Parents, the uniform merge, and what a search learns from them before it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evolve.search_loop.references import (
    known_points,
    only_ratios_count,
    parent_point,
    recipes_of_references,
    reference_trials,
    tiny_weights_count,
    weights_of,
)
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.trial import Kind
from merge_core import METHODS

GENE = {"low": 0.0, "high": 1.0}


def template(method="task_arithmetic", second=GENE, **extra):
    return Template.read(
        {
            "merge_method": method,
            "base_model": "base",
            "models": [
                {"model": "a", "parameters": {"weight": GENE}},
                {"model": "b", "parameters": {"weight": second}},
            ],
            "dtype": "bfloat16",
            **extra,
        }
    )


def scored(written):
    space = RecipeSpace.from_template(written, 4)
    trials = reference_trials(space, written, mergeable=True)
    return space, [replace(trial, objective=0.1 * trial.number, fitness=0.2 * trial.number) for trial in trials]


def test_the_base_comes_first_and_the_uniform_merge_averages_the_fine_tunes():
    space, trials = scored(template())
    assert [trial.label for trial in trials] == ["base", "a", "b", "uniform merge"]
    assert [entry["model"] for entry in trials[-1].recipe["models"]] == ["a", "b"]
    assert weights_of(trials[-1], space) == {"a": 0.5, "b": 0.5}
    assert all(trial.recipe["dtype"] == "bfloat16" for trial in trials)


def test_models_of_different_depth_have_no_uniform_merge():
    written = template()
    space = RecipeSpace.from_template(written, 4)
    assert len(reference_trials(space, written, mergeable=False)) == 3


def test_references_are_points_of_a_space_of_weights():
    written = template()
    space, trials = scored(written)
    points = known_points(space, written, trials)
    assert [vector for vector, _ in points] == [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    assert [fitness for _, fitness in points] == [trial.fitness for trial in trials]


def test_references_outside_the_space_are_not_told():
    for written in (
        template("sce"),
        template(second=0.5),
        template(second={"low": 0.2, "high": 0.8}, parameters={"lambda": GENE}),
    ):
        space, trials = scored(written)
        assert known_points(space, written, trials) == ()
    narrow = template(second={"low": 0.2, "high": 0.8})
    space, trials = scored(narrow)
    assert [vector for vector, _ in known_points(space, narrow, trials)] == [(0.5, (0.5 - 0.2) / (0.8 - 0.2))]


DENSE = {"parameters": {"weight": GENE, "density": {"low": 0.2, "high": 1.0}}}


def of_two(method, first, second=None, **extra):
    models = [{"model": "a", **first}, {"model": "b", **(second or first)}]
    return Template.read({"merge_method": method, "base_model": "base", "models": models, **extra})


@pytest.mark.parametrize(
    ("written", "base", "a"),
    [
        (of_two("ties", DENSE), (0.0, 0.5, 0.0, 0.5), (1.0, 1.0, 0.0, 0.5)),
        (template("ties"), (0.0, 0.0), (1.0, 0.0)),
        (template("dare_linear", parameters={"lambda": {"low": 0.0, "high": 2.0}}), (0.0, 0.0, 0.5), (1.0, 0.0, 0.5)),
        (template("ties", parameters={"density": 0.6}), (0.0, 0.0), None),
        (template("ties", second={**GENE, "layers": "each"}), (0.0,) * 5, (1.0, *(0.0,) * 4)),
        (template("breadcrumbs"), (0.0, 0.0), None),  # whose gamma drops the largest
        (template("breadcrumbs", parameters={"gamma": 0.0}), (0.0, 0.0), (1.0, 0.0)),
        (template("dare_ties", second={**GENE, "name": "one"}), None, None),
        (template("task_arithmetic", second=[{"filter": "mlp", "value": GENE}, {"value": 0.5}]), None, None),
        (template({"choices": ["ties", "task_arithmetic"]}), (0.25, 0.0, 0.0), (0.25, 1.0, 0.0)),
        (template({"choices": ["ties", "model_stock"]}), None, None),
    ],
)
def test_parents_are_points_where_ranges_reach_what_leaves_a_model_as_it_is(written, base, a):
    space = RecipeSpace.from_template(written, 4)
    assert parent_point(space, written, "base") == base
    assert parent_point(space, written, "a") == a


def test_what_weights_do_in_a_method_of_the_users_own_nobody_knows(monkeypatch):
    own = replace(METHODS["task_arithmetic"], name="mine:method", code="of the file")
    monkeypatch.setitem(METHODS, "mine:method", own)
    written = template("mine:method")
    assert parent_point(RecipeSpace.from_template(written, 4), written, "a") is None


@pytest.mark.parametrize(
    ("written", "has_uniform"),
    [
        (Template.read({"merge_method": "linear", "models": template().document["models"]}), True),
        (template(), False),  # is rounded otherwise
    ],
)
def test_recipes_of_the_space_are_references_only_where_the_model_is_the_same(written, has_uniform):
    space = RecipeSpace.from_template(written, 4)
    references = reference_trials(space, written, mergeable=True)
    same = [references[number].kind for number in recipes_of_references(space, written, references)]
    assert same == [Kind.PARENT] * len(space.models) + [Kind.UNIFORM] * has_uniform


def test_the_ends_of_an_interpolation_are_its_models():
    slerp = {"merge_method": "slerp", "base_model": "a", "models": [{"model": "a"}, {"model": "b"}]}
    for low, ends in ((0.0, ((0.0, 0.0), (1.0, 1.0))), (0.2, (None, (1.0, 1.0)))):
        t = {"low": low, "high": 1.0, "layers": {"blocks": 2}}
        written = Template.read({**slerp, "parameters": {"t": t}})
        space = RecipeSpace.from_template(written, 4)
        assert tuple(parent_point(space, written, model) for model in "ab") == ends


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (template("ties"), True),
        (template("ties", parameters={"normalize": False}), False),
        (template("ties", second=0.5), False),  # beside a weight that stays as it is the size counts
        (template("task_arithmetic"), False),
        (template("task_arithmetic", parameters={"normalize": True}), True),
        (template("dare_ties", parameters={"normalize": [{"filter": "mlp", "value": True}]}), False),
        (template("nuslerp"), True),
    ],
)
def test_where_weights_are_divided_by_their_sum_only_ratios_count(written, expected):
    assert only_ratios_count(RecipeSpace.from_template(written, 4)) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (template("ties"), True),
        (template("ties", parameters={"normalize": False}), False),
        (template("dare_ties"), False),
        (template("dare_ties", parameters={"normalize": True}), True),
        (template("task_arithmetic", parameters={"normalize": True}), False),
        (template("linear"), False),
    ],
)
def test_where_signs_are_elected_and_divided_by_their_weights_a_tiny_weight_is_far_from_none(written, expected):
    """Where a model alone has an entry, any weight takes it whole."""
    assert tiny_weights_count(RecipeSpace.from_template(written, 4)) == expected
