"""A path through the layers of a merge: one genome, and one standard recipe."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.problems import ConfigError
from evolve.space.layer_genes import parse_layers
from evolve.space.layer_path import Step
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.space import ConditionalSpace, gene_values
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from merge_core import Recipe, documents_of

LAYERS = 6
GENE = {"low": 0.0, "high": 1.0}


def span(layers: Any = "any", gene: dict[str, Any] | None = None, depth: int = LAYERS, **changes: Any):
    weight = gene or {**GENE, "layers": {"blocks": 3}}
    document = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": weight}},
            {"model": "b", "optional": True, "parameters": {"weight": GENE}},
        ],
        "layers": layers,
        "dtype": "bfloat16",
        **changes,
    }
    template = Template.read(document)
    depths = {**dict.fromkeys(template.models, LAYERS), "b": depth}
    return MergedPathSpace.span(template, depths, parse_layers(template.layers), TensorKinds())


def layers_of(recipe: dict[str, Any]) -> list[int]:
    """The layers of the result; every source of a slice gives the same."""
    last = documents_of(recipe)[0]
    if last.slices is None:
        return list(range(LAYERS))
    found: list[int] = []
    for part in last.slices:
        (layer_range,) = {source.layer_range for source in part.sources}
        found += range(*layer_range)
    return found


KINDS: tuple[Any, ...] = ("any", "each_block", {"path": "same_depth", "shortest": 3}, {"path": "any", "longest": 9})


@pytest.mark.parametrize("layers", KINDS, ids=str)
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_what_counts_for_nothing_changes_nothing(layers: Any, seed: int) -> None:
    space, generator = span(layers), random.Random(seed)
    assert isinstance(space, ConditionalSpace)
    vector = [generator.random() for _ in space.coordinates]
    recipe = space.decode(vector)
    assert layers_of(recipe) == [step.layer for step in space.path_at(vector)]
    inactive = space.inactive(vector)
    others = [generator.random() if number in inactive else unit for number, unit in enumerate(vector)]
    assert space.decode(others) == recipe
    assert space.decode(space.canonical(vector)) == recipe
    assert space.canonical(others) == space.canonical(vector)
    assert gene_values(space, vector).keys() == {
        axis.name for number, axis in enumerate(space.coordinates) if number not in inactive
    }


def test_genes_of_layers_that_are_not_on_the_path_are_inactive() -> None:
    space = span()
    point = space.point_of((Step(0, 0), Step(0, 1), Step(0, 5), Step(0, 1)))
    assert point is not None
    names = {space.coordinates[number].name for number in space.inactive(point)}
    assert names == {"weight[a].layers2-3"}


def test_a_layer_that_is_passed_twice_has_one_set_of_values() -> None:
    space = span(layers="any", gene={**GENE, "layers": "each"})
    values = [0.1 * (layer + 1) for layer in range(LAYERS)]
    path = tuple(Step(0, layer) for layer in (0, 1, 2, 1, 2, 5))
    recipe = Recipe.from_mapping(space.recipe(path, [*values, 0.5, True]))
    weights = [part.sources[0].parameters.to_mapping()["weight"] for part in recipe.slices or ()]
    assert weights == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.3, 0.6])
    assert all(len(part.sources) == 3 for part in recipe.slices or ())


def test_all_layers_in_order_are_the_merge_as_it_would_be_without_a_path() -> None:
    space = span()
    start = space.start({"a": 0.25})
    assert space.decode(start) == space.merge.decode(space.merge.start({"a": 0.25}))


def test_a_method_for_some_layers_goes_along_with_the_path() -> None:
    method = {"choices": ["ties", "task_arithmetic"], "layers": {"blocks": 2}}
    space = span(gene=GENE, merge_method=method)
    values = dict(zip([axis.name for axis in space.merge.coordinates], [0.5] * 9, strict=False))
    values |= {"merge_method.layers0-2": "ties", "merge_method.layers3-5": "task_arithmetic", "use[b]": True}
    path = tuple(Step(0, layer) for layer in (0, 4, 1, 5))
    *merges, stacked = documents_of(space.recipe(path, [values[axis.name] for axis in space.merge.coordinates]))
    assert {merge.merge_method for merge in merges} == {"ties", "task_arithmetic"}
    assert all(layers_of(merge.to_mapping()) == [0, 4, 1, 5] for merge in merges)
    taken = [(str(part.sources[0].model), part.sources[0].layer_range) for part in stacked.slices or ()]
    names = ["by_ties", "by_task_arithmetic"] * 2
    assert taken == [(name, (place, place + 1)) for place, name in enumerate(names)]
    recipe = {"documents": [{"name": "a run"}, *(one.to_mapping() for one in (*merges, stacked))]}
    found = space.with_path_of(recipe, space.start(None))
    assert found is not None
    assert space.path_at(found) == path


@pytest.mark.parametrize(
    ("slices", "path"),
    [
        ([[("a", 0, 4)], [("b", 2, 6)]], [0, 1, 2, 3, 2, 3, 4, 5]),
        ([[("a", 0, 3), ("b", 0, 3)], [("a", 5, 6), ("b", 5, 6)]], [0, 1, 2, 5]),
        ([[("a", 0, 3), ("b", 1, 4)]], None),
        ([[("a", 0, 1)]] * 20, None),
    ],
)
def test_the_path_of_another_recipe_is_taken_whichever_models_it_is_of(slices: Any, path: list[int] | None) -> None:
    space = span()
    written = [
        {"sources": [{"model": model, "layer_range": [low, high]} for model, low, high in part]} for part in slices
    ]
    start = space.start(None)
    point = space.with_path_of({"merge_method": "linear", "slices": written}, start)
    if path is None:
        assert point is None
    else:
        assert point is not None
        assert [step.layer for step in space.path_at(point)] == path
        assert point[space.place_count :] == tuple(start[space.place_count :])


def test_models_of_another_depth_are_told() -> None:
    with pytest.raises(ConfigError, match="models need as many of them, got a 6, b 4, base 6"):
        span(depth=4)
