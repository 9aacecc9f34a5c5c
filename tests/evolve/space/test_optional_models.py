"""Models that a candidate may do without."""

from __future__ import annotations

import pytest

from evolve.space.optional_models import misplaced_marks, without_marks
from evolve.space.recipe_space import RecipeSpace
from evolve.space.space import gene_values
from evolve.space.template import Template
from merge_core import Recipe

WEIGHT = {"low": 0, "high": 1}


def document(method="ties", **changes):
    models = [
        {"model": name, "optional": True, "parameters": {"weight": WEIGHT, "density": {"low": 0.1, "high": 1}}}
        for name in ("a", "b")
    ]
    models.append({"model": "c", "parameters": {"weight": WEIGHT, "density": 0.5}})
    return {"merge_method": method, "base_model": "base", "models": models, **changes}


def space(**changes) -> RecipeSpace:
    return RecipeSpace.from_template(Template.read(document(**changes)), layer_count=4)


def at(made: RecipeSpace, **units: float) -> list[float]:
    return [units.get(axis.name.replace("[", "_").rstrip("]"), 0.5) for axis in made.coordinates]


def names_of(recipe) -> list[str]:
    return [entry["model"] for entry in recipe["models"]]


def test_a_switch_leaves_a_model_out_of_a_standard_recipe():
    made = space()
    assert [axis.name for axis in made.coordinates if axis.is_switch] == ["use[a]", "use[b]"]
    recipe = made.decode(at(made, use_a=0.9, use_b=0.1))
    assert names_of(recipe) == ["b", "c"]
    assert all("optional" not in entry for entry in recipe["models"])
    assert Recipe.from_mapping(recipe).to_mapping()


def test_genes_of_a_model_that_is_left_out_are_inactive():
    made = space()
    vector = at(made, use_a=0.9, use_b=0.1)
    inactive = {made.coordinates[number].name for number in made.inactive(vector)}
    assert inactive == {"weight[a]", "density[a]"}
    assert set(gene_values(made, vector)) == {axis.name for axis in made.coordinates} - inactive
    others = [0.77 if number in made.inactive(vector) else unit for number, unit in enumerate(vector)]
    assert made.decode(others) == made.decode(vector)
    assert made.canonical(others) == made.canonical(vector)


def test_genes_that_the_method_does_not_read_are_inactive():
    made = space(method={"choices": ["ties", "task_arithmetic"]})
    names = [axis.name for axis in made.coordinates]
    vector = at(made, use_a=0.1, use_b=0.1)
    vector[names.index("merge_method")] = 0.9
    assert {names[number] for number in made.inactive(vector)} == {"density[a]", "density[b]"}


def test_a_model_that_stays_since_nothing_else_is_left_counts_as_on():
    written = {"merge_method": "linear", "models": document()["models"][:2], "parameters": {}}
    made = RecipeSpace.from_template(Template.read(written), 4)
    vector = at(made, use_a=0.9, use_b=0.9)
    assert made.left_out(vector) == ["b"]
    assert gene_values(made, vector)["use[a]"] is True
    assert {made.coordinates[number].name for number in made.inactive(vector)} == {"weight[b]", "density[b]"} & {
        axis.name for axis in made.coordinates
    } | {axis.name for axis in made.coordinates if axis.name.startswith("density")}
    assert made.decode(made.canonical(vector)) == made.decode(vector)


def test_something_is_left_to_merge():
    made = RecipeSpace.from_template(
        Template.read({"merge_method": "linear", "models": document()["models"][:2], "parameters": {}}), 4
    )
    assert names_of(made.decode(at(made, use_a=0.9, use_b=0.9))) == ["a"]


def test_switches_reach_every_slice():
    sources = [{**entry, "layer_range": [0, 2]} for entry in document()["models"]]
    later = [{**entry, "layer_range": [2, 4]} for entry in document()["models"]]
    written = {"merge_method": "ties", "base_model": "base", "slices": [{"sources": sources}, {"sources": later}]}
    made = RecipeSpace.from_template(Template.read(written), 4)
    recipe = made.decode(at(made, use_a=0.9, use_b=0.1))
    assert [[source["model"] for source in part["sources"]] for part in recipe["slices"]] == [["b", "c"]] * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "slerp"}, "slerp needs each of its models"),
        ({"models": [{"model": "base", "optional": True}]}, "a base model cannot be left out"),
        ({"models": [{"model": "a", "optional": "yes"}]}, "expected true or false, got 'yes'"),
        ({"models": [{"model": {"choices": ["a", "b"]}, "optional": True}]}, "is a gene already"),
        ({"models": [{"model": "a", "optional": True}]}, "optional changes nothing"),
    ],
)
def test_what_cannot_be_left_out(changes, said):
    assert any(said in str(problem) for problem in misplaced_marks(Template.read(document(**changes))))


def test_without_marks_it_is_a_standard_recipe():
    plain = without_marks(document())
    assert names_of(plain) == ["a", "b", "c"]
    assert all("optional" not in entry for entry in plain["models"])
    assert document()["models"][0]["optional"], "the document itself is left as it was"
