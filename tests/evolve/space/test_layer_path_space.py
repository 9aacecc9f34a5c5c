"""Paths through layers: points, paths and recipes are the same thing in three forms."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.config.layers_reader import check_layers
from evolve.problems import ConfigError
from evolve.space.layer_genes import parse_layers
from evolve.space.layer_path import Step, path_of_slices, path_slices
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.span_layers import span_layers
from evolve.space.template import Template
from merge_core import Recipe

DEPTHS = {"a": 4, "b": 4, "c": 6, "shallow": 1, "zoo/none": 4}
TENSORS = ("model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight")


def template(models=("a",), **layers) -> Template:
    document = {"merge_method": "passthrough", "models": [{"model": model} for model in models], "dtype": "bfloat16"}
    return Template.read({**document, "layers": layers})


def span(*models: str, **layers) -> LayerPathSpace:
    made = template(models or ("a",), **layers)
    depths = {model: DEPTHS[model] for model in made.models}
    return span_layers(made, depths, parse_layers(made.layers), TENSORS)


def layers_of(recipe) -> list[tuple[str, int]]:
    """The layers of the result, from the recipe as the merge engine reads it."""
    return [
        (str(source.model), layer)
        for part in Recipe.from_mapping(recipe).slices
        for source in part.sources
        for layer in range(*source.layer_range)
    ]


SPACES = {
    "repeat": lambda: span("a", repeat="each_block"),
    "any": lambda: span("a", "c", path="any", longest=8),
    "scaled": lambda: span("a", path="any", scale={"low": 0, "high": 1}),
    "same_depth": lambda: span("a", "b", path="same_depth"),
    "skipping": lambda: span("a", "b", path="same_depth", shortest=2),
    "called none": lambda: span("a", "zoo/none", path="same_depth", shortest=2),
}


@pytest.mark.parametrize("kind", SPACES)
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_every_point_is_a_path_and_every_path_a_point(kind: str, seed: int):
    space, generator = SPACES[kind](), random.Random(seed)
    vector = [generator.random() for _ in space.coordinates]
    path = space.path_at(vector)
    point = space.point_of(path)
    assert point is not None
    assert space.path_at(point) == path
    names = dict(enumerate(space.models))
    assert layers_of(space.decode(vector)) == [(names[step.model], step.layer) for step in path]
    canonical = space.canonical(vector)
    assert space.decode(canonical) == space.decode(vector)
    assert space.canonical(canonical) == canonical


@pytest.mark.parametrize("kind", SPACES)
def test_a_search_starts_at_the_best_model_as_it_is(kind: str):
    space = SPACES[kind]()
    best = space.models[-1]
    recipe = space.decode(space.start({best: 1.0}))
    assert layers_of(recipe) == [(best, layer) for layer in range(DEPTHS[best])]
    alone = {"merge_method": "passthrough", "models": [{"model": best}]}
    assert space.decode(space.point_of_recipe(alone)) == recipe


def test_a_repeated_block_is_every_block_once():
    space = span("a", repeat="each_block")
    found = {space.path_of([first, count]) for first in range(4) for count in range(5) if first + count <= 4}
    blocks = {tuple(range(end)) + tuple(range(first, 4)) for first in range(4) for end in range(first + 1, 5)}
    assert {tuple(step.layer for step in path) for path in found} == blocks | {(0, 1, 2, 3)}
    assert len(blocks) == 10


def test_the_longest_bounds_what_is_repeated():
    space = span("a", repeat="each_block", longest=6)
    lengths = {len(space.path_of([first, count])) for first in range(4) for count in range(3)}
    assert max(lengths) == 6
    assert space.coordinates[1].gene.high == 2


def test_layers_that_are_passed_again_are_scaled_and_the_first_pass_is_not():
    space = span("a", path="any", scale={"low": 0, "high": 1})
    path = (Step(0, 0), Step(0, 1), Step(0, 1), Step(0, 2))
    slices = space.recipe(path, 0.5)["slices"]
    scales = [part["sources"][0].get("parameters") for part in slices]
    again = {"scale": [{"filter": "o_proj", "value": 0.5}, {"filter": "down_proj", "value": 0.5}]}
    assert scales == [None, again, None]
    assert [part["sources"][0]["layer_range"] for part in slices] == [[0, 2], [1, 2], [2, 3]]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=9))
def test_slices_are_as_few_as_can_be_and_say_the_path(steps):
    path = tuple(Step(*step) for step in steps)
    slices = path_slices(path, ["a", "b"])
    assert path_of_slices(slices, ["a", "b"]) == path
    joints = sum(after != (before[0], before[1] + 1) for before, after in itertools.pairwise(steps))
    assert len(slices) == joints + 1


@pytest.mark.parametrize("layers", [{"path": "any", "longest": 1}, {"path": "any", "shortest": 9}])
def test_bounds_that_are_given_move_those_that_are_not(layers):
    space = span("c", **layers)
    assert space.shortest <= space.longest
    assert space.point_of(space.path_at([0.3] * len(space.coordinates))) is not None


@pytest.mark.parametrize(
    ("models", "layers", "said"),
    [
        (("a", "b"), {"repeat": "each_block"}, "blocks of one model, got 2"),
        (("a",), {"repeat": "each_block", "longest": 4}, "has 4 layers, so a longest of 4 repeats none"),
        (("shallow",), {"repeat": "each_block"}, "no blocks to choose from"),
        (("a", "c"), {"path": "same_depth"}, "as many layers as each other, got a 4, c 6"),
        (("a",), {"path": "same_depth"}, "nothing to choose"),
        (("a", "b"), {"path": "same_depth", "shortest": 20}, "the models have 4 layers, got 20"),
        (("a", "b"), {"path": "same_depth", "scale": {"low": 0, "high": 1}}, "passes no layer twice"),
        (("a",), {"path": "any", "scale": {"low": 0, "high": 1, "filters": ["c_proj"]}}, "'c_proj' is in no tensor"),
    ],
)
def test_what_no_path_of_these_models_is(models, layers, said):
    with pytest.raises(ConfigError, match=said):
        span(*models, **layers)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": {"repeat": "some"}}, "each_block"),
        ({"layers": {"path": "any", "shortest": 9, "longest": 3}}, "shortest 9 is above longest 3"),
        ({"layers": {"path": "any", "length": 3}}, "unknown key"),
        ({"layers": {"path": "any", "scale": {"low": 1, "high": 0}}}, "low must be below high"),
        ({"layers": 7}, "expected each_block, any, same_depth or a mapping"),
        ({"layers": "some_blocks"}, "expected each_block, any, same_depth or a mapping"),
        (
            {"merge_method": "linear", "layers": {"path": "any", "scale": {"low": 0, "high": 1}}},
            "only passthrough scales",
        ),
        ({"merge_method": "linear", "models": None, "slices": []}, "a list of models is needed beside layers"),
        ({"models": [{"model": "a", "parameters": {"weight": 1}}]}, "a list of models and nothing else"),
        ({"slices": []}, "no meaning beside layers"),
        ({"dtype": {"choices": ["bfloat16", "float16"]}}, "cannot be a gene beside layers"),
        ({"dtype": "bfloat17"}, "bfloat17"),
    ],
)
def test_mistakes_are_told_where_they_are(changes, said):
    document = {**template(path="any").document, **changes}
    problems = [str(problem) for problem in check_layers(Template.read(document))]
    assert any(said in problem for problem in problems), problems


def test_a_bare_name_is_enough():
    assert parse_layers("any") == parse_layers({"path": "any"})
    assert parse_layers("each_block") == parse_layers({"repeat": "each_block"})
