"""Descent in the box: against Adam by hand, and what resolutions share."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evolve.search_loop.descent import Descent, shrunk
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template

GENE = {"low": 0.0, "high": 2.0, "layers": {"blocks": 2}, "filters": ["mlp"]}
SPACE = RecipeSpace.from_template(
    Template.read(
        {
            "merge_method": "linear",
            "models": [{"model": "a", "parameters": {"weight": GENE}}, {"model": "b", "parameters": {"weight": GENE}}],
        }
    ),
    layer_count=2,
)
ALL = tuple(range(len(SPACE.coordinates)))


def test_the_first_steps_of_one_gene_are_adams() -> None:
    space = RecipeSpace.from_template(
        Template.read(
            {"merge_method": "linear", "models": [{"model": "a", "parameters": {"weight": {"low": 0, "high": 2}}}]}
        ),
        1,
    )
    descent = Descent(space.coordinates, [0.5], [0], rate=0.1, resolution="gene")
    value, mean, square = 1.0, 0.0, 0.0
    for step, slope in enumerate((3.0, -1.0, 0.5), start=1):
        descent.step([2.0 * slope])  # by the unit, which is two of the gene's own
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        rate = 0.1 / math.sqrt(1 + (step - 1) / 20)
        value -= rate * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.999**step)) + 1e-12)
        assert 2.0 * descent.vector[0] == pytest.approx(value)


@pytest.mark.parametrize(("resolution", "distinct"), [("model", 2), ("layer", 4), ("gene", 8)])
def test_what_moves_together(resolution: str, distinct: int) -> None:
    descent = Descent(SPACE.coordinates, [0.5] * 8, ALL, rate=0.1, resolution=resolution)
    generator = np.random.default_rng(0)
    for _ in range(3):
        descent.step(generator.standard_normal(8))
    assert len({round(unit, 9) for unit in descent.vector}) == distinct
    groups = {}
    for axis, unit in zip(SPACE.coordinates, descent.vector, strict=True):
        place = {"model": axis.model, "layer": (axis.model, axis.layers), "gene": axis.name}[resolution]
        groups.setdefault(place, set()).add(round(unit, 9))
    assert all(len(units) == 1 for units in groups.values())


def test_no_gene_moves_farther_than_the_rate_or_out_of_the_box_and_others_not_at_all() -> None:
    descent = Descent(SPACE.coordinates, [0.5] * 8, ALL[:6], rate=0.1, resolution="auto")
    descent.step([1.0] * 8)
    moved = 0.5 - np.array(descent.vector)
    assert moved[:6] == pytest.approx(0.05)  # 0.1 of a range of 2
    assert moved[6:] == pytest.approx(0.0)
    for _ in range(100):
        descent.step([1.0] * 8)
    assert min(descent.vector) == 0.0


def test_the_average_counts_later_steps_more() -> None:
    descent = Descent(SPACE.coordinates, [0.5] * 8, ALL, rate=0.1, resolution="gene")
    generator = np.random.default_rng(2)
    expected = None
    for step in range(1, 21):
        descent.step(generator.standard_normal(8))
        share = max(0.1, 1 / step)
        now = np.array(descent.vector)
        expected = now if expected is None else (1 - share) * expected + share * now
    assert descent.average == pytest.approx(expected)


def test_shrinking_keeps_the_layers_means_and_some_of_what_differs() -> None:
    generator = np.random.default_rng(1)
    start, end = [0.5] * 8, list(0.5 + 0.3 * generator.uniform(-1, 1, 8))
    layers = [(axis.model, axis.layers) for axis in SPACE.coordinates]
    for share in (0.0, 0.5, 1.0):
        found = np.array(shrunk(SPACE.coordinates, ALL, start, end, share))
        for layer in set(layers):
            own = [place for place, other in enumerate(layers) if other == layer]
            mean = np.mean([end[place] for place in own])
            for place in own:
                assert found[place] == pytest.approx(mean + share * (end[place] - mean))
    kept = shrunk(SPACE.coordinates, ALL[:2], start, end, 0.0)
    assert kept[2:] == pytest.approx(end[2:])  # of genes that did not move, nothing is said
