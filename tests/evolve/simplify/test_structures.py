"""Which tensors share a number: losses by hand, what is planted is found, and the short form means what it says."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.simplify.long_recipe import count_numbers
from evolve.simplify.structures import Cell, Site, Structure, structures
from evolve.simplify.structures import settings as short_settings
from evolve.space.genes import RangeGene
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template

LAYERS = 4
KINDS = ("self_attn.q_proj.weight", "self_attn.v_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")
CELLS: list[Cell] = [*itertools.product(KINDS, range(LAYERS)), ("embed_tokens.weight", None), ("norm.weight", None)]
GENE = RangeGene(low=-1.0, high=2.0, layers="each", filters="each_tensor")


def site(number: int, value: Any, weight: Any = lambda cell: 1.0) -> Site:
    path = ("models", number, "parameters", "weight")
    return Site(path, GENE, {cell: value(cell) for cell in CELLS}, {cell: weight(cell) for cell in CELLS})


def attention_apart(cell: Cell) -> float:
    return 0.9 if "self_attn" in cell[0] else 0.2


def test_what_is_planted_is_found_and_nothing_longer_is_offered() -> None:
    front = structures([site(0, attention_apart), site(1, lambda cell: 0.5)], LAYERS, 100)
    assert [(one.filters, one.blocks, one.numbers) for one in front] == [((), 1, 2), (("self_attn",), 1, 4)]
    assert front[-1].loss == pytest.approx(0.0, abs=1e-12)


def test_blocks_of_layers_are_found_too() -> None:
    front = structures([site(0, lambda cell: 0.1 if (cell[1] or 0) < 2 else 0.7)], LAYERS, 100)
    assert (front[-1].filters, front[-1].blocks) == ((), 2)
    assert front[-1].loss == pytest.approx(0.0, abs=1e-12)


def test_tensors_that_move_the_model_count_more() -> None:
    def of_kind(cell: Cell) -> float:
        return {"mlp.up_proj.weight": 0.9, "input_layernorm.weight": -0.9}.get(cell[0], 0.0)

    for heavy, word in (("mlp.up_proj.weight", "mlp"), ("input_layernorm.weight", "input_layernorm")):
        weigh = {cell: 1000.0 if cell[0] == heavy else 1.0 for cell in CELLS}
        front = structures([site(0, of_kind, lambda cell, weigh=weigh: weigh[cell])], LAYERS, 2)
        assert (front[-1].blocks, len(front[-1].filters)) == (1, 1)
        assert word in front[-1].filters[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_longer_structures_lose_less_and_none_is_too_long(seed: int, most: int) -> None:
    generator = random.Random(seed)
    sites = [site(number, lambda cell: generator.uniform(-1, 2)) for number in range(2)]
    front = structures(sites, LAYERS, most)
    assert all(one.numbers <= most for one in front)
    assert [one.numbers for one in front] == sorted({one.numbers for one in front})
    losses = [one.loss for one in front]
    assert losses == sorted(losses, reverse=True)


def test_the_short_form_is_a_template_that_begins_at_the_means_and_has_as_many_numbers_as_it_says() -> None:
    sites = [site(0, attention_apart), site(1, lambda cell: 0.5)]
    document: dict[str, Any] = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": name, "parameters": {"weight": None}} for name in ("a", "b")],
    }
    for structure in (
        Structure((), 1, 2, 0.0),
        Structure(("self_attn",), 1, 4, 0.0),
        Structure(("self_attn", "embed"), 1, 6, 0.0),
        Structure(("self_attn",), 2, 8, 0.0),
    ):
        for dotted, value in short_settings(sites, structure, LAYERS).items():
            _, _, number, _, _ = dotted.split(".")
            document["models"][int(number)]["parameters"]["weight"] = value
        space = RecipeSpace.from_template(Template.read(document), LAYERS)
        recipe = space.decode(space.start(None))
        assert count_numbers(recipe) == structure.numbers
    weight = recipe["slices"][0]["sources"][0]["parameters"]["weight"]
    assert weight[0] == {"filter": "self_attn", "value": pytest.approx(0.9)}
    assert weight[1]["value"] == pytest.approx(0.2)


def test_numbers_are_counted_in_parameters_alone() -> None:
    recipe = {
        "slices": [
            {"sources": [{"layer_range": [0, 4], "parameters": {"weight": [0.1, {"filter": "a", "value": 2}]}}]}
        ],
        "parameters": {"lambda": 0.5, "normalize": True},
    }
    assert count_numbers(recipe) == 3
