"""Which variants a sweep has, and what they are called."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evolve.bounds import VARIANTS
from evolve.config.sweep import SweepConfig, variants_of
from evolve.problems import ConfigError

GRIDS = st.dictionaries(
    st.sampled_from(["seed", "recipe.merge_method", "optimizer.name", "recipe.models.0.parameters.weight"]),
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    min_size=1,
)


@given(GRIDS)
def test_a_grid_is_every_combination_once_under_its_own_name(grid: dict[str, list[int]]) -> None:
    variants = variants_of(SweepConfig(vary=grid), seed=0)
    wanted = [dict(zip(grid, row, strict=True)) for row in itertools.product(*grid.values())]
    assert [variant.settings for variant in variants] == wanted
    assert (
        len({variant.name for variant in variants}) == len({variant.directory for variant in variants}) == len(wanted)
    )


@given(GRIDS, st.integers(1, 5), st.integers(0, 9))
def test_a_sample_is_part_of_the_grid_and_the_same_every_time(
    grid: dict[str, list[int]], count: int, seed: int
) -> None:
    whole = [variant.settings for variant in variants_of(SweepConfig(vary=grid), seed)]
    sample = [variant.settings for variant in variants_of(SweepConfig(vary=grid, sample=count), seed)]
    assert len(sample) == min(count, len(whole))
    assert [settings for settings in whole if settings in sample] == sample
    assert sample == [variant.settings for variant in variants_of(SweepConfig(vary=grid, sample=count), seed)]


def test_a_sample_of_a_huge_grid_does_not_make_it() -> None:
    grid = {f"recipe.models.{number}.parameters.weight": list(range(100)) for number in range(20)}
    assert len(variants_of(SweepConfig(vary=grid, sample=7), 0)) == 7


def test_names_are_short_where_they_are_plain() -> None:
    grid = {"optimizer.name": ["cma"], "recipe.models.0.parameters.weight": [0.5], "recipe.models": [["a" * 80]]}
    (variant,) = variants_of(SweepConfig(vary=grid), 0)
    assert variant.name.startswith("optimizer=cma, weight=0.5, models=")
    assert len(variant.name) < 100
    two = {"recipe.models.0.parameters.weight": [0.5], "recipe.models.1.parameters.weight": [0.4]}
    (variant,) = variants_of(SweepConfig(vary=two), 0)
    assert variant.name == "recipe.models.0.parameters.weight=0.5, recipe.models.1.parameters.weight=0.4"


def test_lists_of_models_are_called_by_the_models_that_tell_them_apart() -> None:
    def names(*lists: list[dict[str, Any]]) -> list[str]:
        return [variant.name for variant in variants_of(SweepConfig(vary={"recipe.models": list(lists)}), 0)]

    def named(*models: str, weight: float = 0.5) -> list[dict[str, Any]]:
        return [{"model": f"zoo/{model}", "parameters": {"weight": weight}} for model in models]

    assert names(named("math", "code"), named("math", "law")) == ["models=code", "models=law"]
    assert names(named("math", "code"), named("math")) == ["models=math+code", "models=math"]
    assert names(named("math"), named("math", weight=0.7)) == [
        'models=math {"weight": 0.5}',
        'models=math {"weight": 0.7}',
    ]
    assert names(named("a/math"), named("b/math")) == ["models=zoo/a/math", "models=zoo/b/math"]


def test_listed_variants_come_after_the_grid_and_may_not_share_a_name() -> None:
    sweep = SweepConfig(vary={"seed": [0]}, variants={"short": {"budget.evaluations": 3}})
    assert [variant.name for variant in variants_of(sweep, 0)] == ["seed=0", "short"]
    with pytest.raises(ConfigError, match="have the same name"):
        variants_of(SweepConfig(vary={"seed": [0]}, variants={"Seed=0": {"seed": 0}}), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "varies nothing"),
        ({"vary": {"seed": []}}, "has no values"),
        ({"vary": {f"a{n}": list(range(10)) for n in range(5)}}, f"{10**5} combinations"),
        ({"vary": {"sweep.vary": [1]}}, "is the sweep itself"),
        ({"variants": {"a": {"sweep": None}}}, "changes sweep of the sweep itself"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, object], message: str) -> None:
    assert VARIANTS < 10**5
    with pytest.raises(ValidationError, match=message):
        SweepConfig.model_validate(settings)
