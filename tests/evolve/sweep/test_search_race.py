"""Which searches can be raced, and who of them is settled to be beaten."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from evolve.config.strategy import BudgetConfig
from evolve.config.sweep import Variant
from evolve.scoring import Objective, ObjectiveTerm
from evolve.sweep.search_race import beaten_searches, item_budget, obstacle_to_races
from evolve.trials.trial import ItemScores

OBJECTIVE = Objective({"task": ObjectiveTerm(1.0, "maximize")})
VARIANTS = [
    Variant(f"{method} {seed}", {"recipe.merge_method": method, "seed": seed}) for method in "ab" for seed in (0, 1)
]


class Settings(SimpleNamespace):
    """Of a search, as far as races ask for them."""

    def model_dump(self, mode: str) -> dict[str, Any]:
        return dict(vars(self))


def searches(**changes: Any) -> Any:
    """Name of a variant → its search; `changes` are those of the last variant."""
    found = {}
    for variant in VARIANTS:
        settings = {
            "seed": variant.settings["seed"],
            "budget": BudgetConfig(items=1000),
            **dict.fromkeys(("tasks", "items", "objective", "constraints", "objectives", "cost_weights", "normalize")),
            **(changes if variant is VARIANTS[-1] else {}),
        }
        splits = {"task": SimpleNamespace(search=range(10))}
        found[variant.name] = SimpleNamespace(config=Settings(**settings), splits=splits)
    return found


def coins(chance: float, seed: int, count: int = 40) -> ItemScores:
    draw = random.Random(f"{chance} {seed}")
    return {"task": {item: float(draw.random() < chance) for item in range(count)}}


def beaten(chances: dict[str, float]) -> set[str]:
    best = {variant.name: coins(chances[variant.name], number) for number, variant in enumerate(VARIANTS)}
    return {variant.name for variant in beaten_searches(VARIANTS, best, searches(), OBJECTIVE, of_all=2)}


def test_all_seeds_of_a_variant_are_beaten_together() -> None:
    assert beaten({"a 0": 0.9, "a 1": 0.9, "b 0": 0.3, "b 1": 0.3}) == {"b 0", "b 1"}


def test_one_seed_that_went_badly_does_not_settle_it() -> None:
    assert beaten({"a 0": 0.9, "a 1": 0.6, "b 0": 0.5, "b 1": 0.95}) == set()


def test_who_has_found_nothing_yet_is_not_judged() -> None:
    best: dict[str, ItemScores] = {"a 0": coins(0.9, 0), "a 1": coins(0.9, 1), "b 0": coins(0.1, 2), "b 1": {}}
    assert beaten_searches(VARIANTS, best, searches(), OBJECTIVE, of_all=2) == []


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({}, None),
        ({"budget": BudgetConfig(items=2000)}, "budgets differ"),
        ({"tasks": ["other"]}, "tasks differ"),
        ({"constraints": ["kept"]}, "judged by more"),
        ({"seed": 7}, "the same seeds"),
    ],
)
def test_what_is_judged_otherwise_is_not_raced(changes: dict[str, Any], obstacle: str | None) -> None:
    found = obstacle_to_races(VARIANTS, searches(**changes))
    assert found is None if obstacle is None else obstacle in str(found)


def test_budgets_of_candidates_count_in_items_too() -> None:
    found = searches()
    found["a 0"].config.budget = BudgetConfig(evaluations=30)
    assert item_budget(found) == 300
