"""Recipes cut into slices say of every tensor what the recipe with its genes put in says."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evolve.space.genes import RangeGene, find_genes, parse_gene, put
from evolve.space.layer_slices import group_bounds, join_slices, split_into_slices
from evolve.space.recipe_space import RecipeSpace
from evolve.space.sound_ranges import narrowed_ranges
from evolve.space.template import Template
from merge_core import METHODS, MergeError, Recipe
from merge_core.plan.slice_context import SliceContext
from merge_core.recipe.parameters import layer_position
from merge_core.recipe.parts import OutputSlice
from merge_core.recipe.slices import output_slices

INNER = ("mlp.up_proj", "mlp.down_proj", "self_attn.q_proj", "input_layernorm")
BEFORE, AFTER = ("model.embed_tokens",), ("model.norm", "lm_head")
FILTERS = ("mlp", "up_proj", "self_attn", "norm", "lm_head", "layers.1.")

# What every tensor of a recipe gets ----------------------------------------------------------------------------


def read(recipe: Recipe, part: OutputSlice, output: str, sources: list[str], position: float) -> Any:
    """The parameter values of one output tensor, or that one is missing."""
    context = SliceContext(recipe, part)
    try:
        inputs = [(job.model, job.tensor, *job.parameters) for job in context.inputs(sources, position)]
        return inputs, context.settings(output, position)
    except MergeError:
        return "a required parameter is missing"


def read_layer(recipe: Recipe, part: OutputSlice, offset: int, number: int) -> Iterator[tuple[str, Any]]:
    """Every tensor of one layer of a slice; `number` is the layer's in the result."""
    position = layer_position(offset, part.layer_count)
    for inner in INNER:
        names = [f"model.layers.{source.layer_range[0] + offset}.{inner}" for source in part.sources]
        output = f"model.layers.{number}.{inner}"
        yield output, read(recipe, part, output, names, position)


def read_outside(recipe: Recipe, part: OutputSlice, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in names:
        yield name, read(recipe, part, name, [name] * len(part.sources), 0.0)


def values_of(recipe: Recipe, layer_count: int) -> dict[str, Any]:
    """Every tensor of a recipe without genes -> its values."""
    slices = output_slices(recipe, layer_count)
    found = dict(read_outside(recipe, slices[0], BEFORE)) | dict(read_outside(recipe, slices[-1], AFTER))
    number = 0
    for part in slices:
        for offset in range(part.layer_count):
            found |= dict(read_layer(recipe, part, offset, number))
            number += 1
    return found


def values_with_genes(template: Mapping[str, Any], vector: list[float], layer_count: int) -> dict[str, Any]:
    """Every tensor of a recipe with genes -> its values: each layer sees the recipe with its own values put in."""

    def seen_by(offset: int, count: int) -> Recipe:
        return Recipe.from_mapping(filled(template, vector, layer_count, offset, count))

    counts = [part.layer_count for part in output_slices(seen_by(0, layer_count), layer_count)]
    first, last = seen_by(0, counts[0]), seen_by(counts[-1] - 1, counts[-1])
    found = dict(read_outside(first, output_slices(first, layer_count)[0], BEFORE))
    found |= dict(read_outside(last, output_slices(last, layer_count)[-1], AFTER))
    number = 0
    for index, count in enumerate(counts):
        for offset in range(count):
            recipe = seen_by(offset, count)
            found |= dict(read_layer(recipe, output_slices(recipe, layer_count)[index], offset, number))
            number += 1
    return found


def filled(template: Mapping[str, Any], vector: list[float], layer_count: int, offset: int, count: int) -> Any:
    """The template as layer `offset` of a slice of `count` layers sees it."""
    recipe = copy.deepcopy(dict(template))
    units = iter(vector)
    for path, node in find_genes(template):
        gene = parse_gene(node, path)
        assert isinstance(gene, RangeGene)
        values = [value_there(gene, units, layer_count, offset, count) for _ in (*gene.filters, "rest")]
        entries = [{"filter": name, "value": value} for name, value in zip(gene.filters, values, strict=False)]
        put(recipe, path, [*entries, {"value": values[-1]}] if gene.filters else values[0])
    return recipe


def value_there(gene: RangeGene, units: Iterator[float], layer_count: int, offset: int, count: int) -> Any:
    if gene.layers is None:
        return gene.value(next(units))
    if not isinstance(gene.layers, str) and hasattr(gene.layers, "knots"):
        return [gene.value(next(units)) for _ in range(gene.layers.knots)]
    groups = layer_count if isinstance(gene.layers, str) else gene.layers.blocks
    values = [gene.value(next(units)) for _ in range(groups)]
    return next(values[group] for group in range(groups) if offset < (group + 1) * count // groups)


# Recipes with genes --------------------------------------------------------------------------------------------


@functools.cache
def settings_of(kind: str, layer_count: int) -> st.SearchStrategy[Any]:
    plain: st.SearchStrategy[Any] = st.booleans() if kind == "flag" else st.sampled_from([0, 0.25, 0.5, 1, "1e-1"])
    value = plain | st.lists(plain, min_size=1, max_size=4)
    whole = value
    if kind != "flag":
        layers = st.sampled_from(
            [None, "each", {"knots": max(2, min(3, layer_count))}, {"blocks": 1}, {"blocks": min(2, layer_count)}]
        )
        gene = layers.map(lambda chosen: {"low": 0.0, "high": 1.0} | ({} if chosen is None else {"layers": chosen}))
        names = st.lists(st.sampled_from(FILTERS), unique=True, min_size=1, max_size=2)
        filtered = st.tuples(gene, names).map(lambda pair: {**pair[0], "filters": pair[1]})
        value, whole = value | gene, value | gene | filtered
    filters = st.sampled_from([*FILTERS, "*", None])
    entry = st.tuples(filters, value).map(
        lambda pair: {"value": pair[1]} if pair[0] is None else {"filter": pair[0], "value": pair[1]}
    )
    return whole | st.lists(entry, min_size=1, max_size=3)


@st.composite
def templates(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    layer_count = draw(st.integers(1, 7))
    method = METHODS[draw(st.sampled_from(["linear", "ties", "della", "breadcrumbs", "slerp", "multislerp"]))]
    models = ["zoo/a", "zoo/b", "zoo/c"][: 2 if method.name == "slerp" else 3]

    def parameters(likely: int) -> dict[str, Any]:
        chosen = [one for one in method.parameters if draw(st.integers(1, 10)) <= likely and one.kind != "integer"]
        found = {one.name: draw(settings_of(one.kind, layer_count)) for one in chosen}
        return {"parameters": found} if found else {}

    template: dict[str, Any] = {"merge_method": method.name, "dtype": "bfloat16", **parameters(7)}
    with_base = method.base == "required" or draw(st.booleans())
    if with_base:
        template["base_model"] = "zoo/a"
    if draw(st.booleans()):
        listed = models[1:] if with_base and draw(st.booleans()) else models
        template["models"] = [{"model": model, **parameters(5)} for model in listed]
        return template, layer_count
    template["slices"] = []
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, layer_count))
        starts = [draw(st.integers(0, layer_count - count)) for _ in models]
        sources = [
            {"model": model, "layer_range": [start, start + count], **parameters(4)}
            for model, start in zip(models, starts, strict=True)
        ]
        template["slices"].append({"sources": sources, **parameters(4)})
    return template, layer_count


def assert_same(found: Any, expected: Any, place: str) -> None:
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, place)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), place
    else:
        assert found == expected, place


@settings(max_examples=200, deadline=None)
@given(templates(), st.integers(0, 2**32))
def test_every_tensor_keeps_the_values_of_the_recipe_with_its_genes_put_in(written: Any, seed: int) -> None:
    template, layer_count = written
    before = copy.deepcopy(template)
    assume(not list(narrowed_ranges(Template.read(template))))  # by what is written, every value of a range is reached
    space = RecipeSpace.from_template(Template.read(template), layer_count)
    generator = random.Random(seed)
    vector = [generator.random() for _ in space.coordinates]
    emitted = Recipe.from_mapping(space.decode(vector))
    found, expected = values_of(emitted, layer_count), values_with_genes(template, vector, layer_count)
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        assert_same(found[tensor], values, tensor)
    assert template == before


@settings(max_examples=60, deadline=None)
@given(templates(), st.integers(0, 2**32))
def test_every_layer_of_a_path_keeps_the_values_that_it_has_in_the_whole_merge(written: Any, seed: int) -> None:
    template, layer_count = written
    assume("models" in template)
    space = RecipeSpace.from_template(Template.read(template), layer_count)
    generator = random.Random(seed)
    values = [axis.gene.value(generator.random()) for axis in space.coordinates]
    path = [generator.randrange(layer_count) for _ in range(generator.randint(1, 8))]
    on_path = Recipe.from_mapping(space.recipe_on(path, values))
    whole = Recipe.from_mapping(space.recipe_of(values))
    found, expected = values_of(on_path, layer_count), values_of(whole, layer_count)
    assert [layer for part in on_path.slices or () for layer in range(*part.sources[0].layer_range)] == path
    for place, layer in enumerate(path):
        for inner in INNER:
            mine, its = f"model.layers.{place}.{inner}", f"model.layers.{layer}.{inner}"
            if not any(f"layers.{number}." in filter_ for number in (place, layer) for filter_ in FILTERS):
                assert_same(found[mine], expected[its], mine)
    if path[0] == 0:
        assert_same(found[BEFORE[0]], expected[BEFORE[0]], BEFORE[0])
    if path[-1] == layer_count - 1:
        assert_same(found[AFTER[0]], expected[AFTER[0]], AFTER[0])


def test_a_filter_list_without_a_rest_leaves_the_gradient_to_the_other_tensors() -> None:
    template = {
        "merge_method": "ties",
        "base_model": "base",
        "parameters": {"density": [0.2, 0.8]},
        "slices": [
            {
                "sources": [
                    {
                        "model": "a",
                        "layer_range": [0, 4],
                        "parameters": {"weight": {"low": 0, "high": 1, "layers": {"blocks": 2}}},
                    },
                    {"model": "base", "layer_range": [0, 4]},
                ],
                "parameters": {"density": [{"filter": "mlp", "value": 0.5}]},
            }
        ],
    }
    found = values_of(Recipe.from_mapping(RecipeSpace.from_template(Template.read(template), 4).decode([0.1, 0.9])), 4)
    density = {name: dict(inputs[0][2:])["density"] for name, (inputs, _) in found.items()}
    assert {density[f"model.layers.{layer}.mlp.up_proj"] for layer in range(4)} == {0.5}
    others = [density[f"model.layers.{layer}.self_attn.q_proj"] for layer in range(4)]
    assert others == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert density["lm_head"] == 0.2  # read at the beginning of the gradient, cut or not


@pytest.mark.parametrize("layers", [1, 5, 32])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_groups_cover_every_layer_exactly_once(layers: int, groups: int) -> None:
    bounds = group_bounds(layers, min(groups, layers))
    assert [layer for low, high in bounds for layer in range(low, high)] == list(range(layers))


def test_a_recipe_without_groups_is_one_slice() -> None:
    recipe = {"merge_method": "passthrough", "models": [{"model": "a"}]}
    assert split_into_slices(recipe, 3)["slices"] == [{"sources": [{"model": "a", "layer_range": [0, 3]}]}]


def test_what_is_no_recipe_stays_so_and_is_told_where_it_is_read() -> None:
    gene = {"low": 0, "high": 1, "layers": "each", "name": "shared"}
    either = {"model": {"choices": ["a", "b"]}, "parameters": {"weight": gene}}
    space = RecipeSpace.from_template(Template.read({"merge_method": "linear", "models": [either, {**either}]}), 2)
    decoded = space.decode([0.0] * len(space.coordinates))
    with pytest.raises(MergeError, match='"a" is listed twice'):
        Recipe.from_mapping(decoded)


def in_slices(*parts: tuple[int, int, Any], **more: Any) -> dict[str, Any]:
    """Layers from one until before another of two models, with a weight."""
    slices = [
        {
            "sources": [
                {"model": "a", "layer_range": [first, end], "parameters": {"weight": weight}},
                {"model": "b", "layer_range": [first, end], "parameters": {"weight": 0.5}},
            ]
        }
        for first, end, weight in parts
    ]
    return {"merge_method": "linear", "slices": slices, **more}


FILTERED = [{"filter": "mlp", "value": 0.2}, {"value": 0.7}]


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ([(0, 2, FILTERED), (2, 3, FILTERED), (3, 4, 0.1)], [(0, 3, FILTERED), (3, 4, 0.1)]),
        ([(0, 2, 0.2), (1, 3, 0.2), (3, 4, 0.2)], [(0, 2, 0.2), (1, 4, 0.2)]),
        ([(0, 2, [0.0, 1.0]), (2, 4, [0.0, 1.0])], [(0, 2, [0.0, 1.0]), (2, 4, [0.0, 1.0])]),
    ],
)
def test_neighbours_that_say_the_same_are_one_slice(parts: list[Any], joined: list[Any]) -> None:
    recipe = in_slices(*parts)
    assert join_slices(recipe) == in_slices(*joined)
    before, after = (values_of(Recipe.from_mapping(one), 4) for one in (recipe, join_slices(recipe)))
    assert before == after
    begun_anew = {"parameters": {"weight": [0.0, 1.0]}}
    assert join_slices(recipe | begun_anew) == recipe | begun_anew
