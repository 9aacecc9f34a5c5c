"""Where ways of the gradient may begin, by what the space's weights mean."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from evolve.search_loop.starts import find_starts
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template

GENE = {"low": 0.0, "high": 1.0, "init": 0.3}


def starts_of(method: str, density: Any = None, weight: Any = GENE, **parameters: Any) -> dict[str, bool]:
    """Label of each start → whether it is a corner."""
    own = {"weight": weight} if density is None else {"weight": weight, "density": density}
    models = [{"model": name, "parameters": own} for name in "ab"]
    written = {"merge_method": method, "base_model": "base", "models": models, "parameters": parameters}
    template = Template.read(written)
    prepared: Any = SimpleNamespace(space=RecipeSpace.from_template(template, 4), template=template)
    search: Any = SimpleNamespace(objective_function=SimpleNamespace(of_feasible=lambda looked: looked))
    return {start.label: start.is_corner for start in find_starts(search, prepared, {"a": 0.5, "b": 0.7})}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("task_arithmetic", {}, ["the file's start", "base", "0.5", "0.25", "1", "b alone"]),
        ("task_arithmetic", {"normalize": True}, ["the file's start", "base", "0.5", "b alone"]),
        ("nuslerp", {}, ["the file's start", "0.5", "b alone"]),  # no weights are no base
    ],
)
def test_sizes_of_weights_are_starts_where_they_count(
    method: str, settings: dict[str, Any], expected: list[str]
) -> None:
    found = {label.removeprefix("all weights ") for label in starts_of(method, **settings)}
    assert found == set(expected)


def test_where_signs_are_elected_and_divided_by_their_weights_no_way_begins_without_a_weight() -> None:
    assert starts_of("ties") == {"the file's start": False, "base": True, "all weights 0.5": False, "b alone": True}
    assert not any(starts_of("ties", normalize=False).values())


def test_where_densities_are_searched_one_start_is_sparse() -> None:
    sparse = "all weights 0.5, densities 0.2"
    assert sparse in starts_of("ties", {"low": 0.1, "high": 1.0})
    assert sparse not in starts_of("ties", {"low": 0.3, "high": 1.0})  # out of reach
    assert sparse not in starts_of("ties", 0.5)


def test_where_densities_are_searched_one_start_drops_as_little_as_it_can() -> None:
    dense = "all weights 0.5, densities as high as they go"
    assert dense in starts_of("della", {"low": 0.1, "high": 0.8})
    assert dense not in starts_of("della", 0.5)
    assert dense not in starts_of("della", {"low": 0.1, "high": 0.8, "init": 0.8})  # that is equal weights as they are


def test_a_start_names_no_weights_that_are_not_searched() -> None:
    found = starts_of("ties", {"low": 0.1, "high": 1.0}, weight=1.0)
    assert {"densities 0.2", "densities as high as they go"} < {*found}
