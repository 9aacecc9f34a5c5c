"""Ranges are searched where the method is defined."""

from __future__ import annotations

import random
from typing import Any

import pytest

from evolve.space.recipe_space import RecipeSpace
from evolve.space.sound_ranges import narrowed_ranges
from evolve.space.template import Template
from merge_core import METHODS


def della(density: Any, epsilon: Any = None, method: Any = "della", **shared: Any) -> Template:
    own = {"weight": 0.5, "density": density} | ({} if epsilon is None else {"epsilon": epsilon})
    models = [{"model": name, "parameters": dict(own)} for name in "ab"]
    return Template.read({"merge_method": method, "base_model": "base", "models": models, "parameters": shared})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (della({"low": 0.3, "high": 1.0}, 0.1), (0.3, 0.9)),
        (della({"low": 0.0, "high": 1.0}), (0.15, 0.85)),  # the default
        (della({"low": 0.1, "high": 0.9}, {"low": 0.05, "high": 0.2}), (0.2, 0.8)),
        (della({"low": 0.3, "high": 1.0, "layers": "each"}, [0.1, 0.25]), (0.3, 0.75)),
        (della({"low": 0.3, "high": 1.0}, method={"choices": ["della_linear", "ties"]}, epsilon=0.2), (0.3, 0.8)),
    ],
)
def test_a_density_keeps_room_for_its_epsilon(template: Template, expected: tuple[float, float]) -> None:
    low, high = expected
    found = [gene for place, gene in narrowed_ranges(template) if place[-1] == "density"]
    assert [(gene.low, gene.high) for gene in found] == [pytest.approx((low, high), abs=1e-3)] * 2
    space = RecipeSpace.from_template(template, 4)
    generator, fault = random.Random(0), METHODS["della"].fault
    assert fault is not None
    for _ in range(100):
        recipe = space.decode([round(generator.random(), 1) for _ in space.coordinates])
        for part in recipe.get("slices", [{"sources": recipe.get("models", [])}]):
            for source in part["sources"]:
                own = source.get("parameters", {})  # a base has none
                if "density" not in own:
                    continue
                epsilons = own.get("epsilon", 0.15)
                for epsilon in epsilons if isinstance(epsilons, list) else [epsilons]:
                    assert fault({"density": own["density"], "epsilon": epsilon}) is None


@pytest.mark.parametrize(
    "template",
    [
        della({"low": 0.3, "high": 0.7}, 0.1),
        della({"low": 0.3, "high": 1.0}, method="ties"),
        della({"low": 0.0, "high": 1.0}, 0.6),  # nowhere defined, which the merge says
    ],
)
def test_other_ranges_stay_as_they_are_written(template: Template) -> None:
    assert not list(narrowed_ranges(template))
    (gene, _) = (axis.gene for axis in RecipeSpace.from_template(template, 4).coordinates)
    assert (gene.low, gene.high) == (  # type: ignore[union-attr]
        template.document["models"][0]["parameters"]["density"]["low"],
        template.document["models"][0]["parameters"]["density"]["high"],
    )
