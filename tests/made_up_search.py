"""What the tests of the search loop have in common: a space of two weights, tasks of means, and a journal that ends."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import Any

from evolve.config.strategy import BudgetConfig
from evolve.scoring.scores.item_statistics import MeanOfItems, score_with_error
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.journal import Journal

GENE = {"low": 0.0, "high": 1.0}
TEMPLATE = {"merge_method": "linear", "models": [{"model": name, "parameters": {"weight": GENE}} for name in "ab"]}
SPACE = RecipeSpace.from_template(Template.read(TEMPLATE), layer_count=2)


class Killed(BaseException):
    """What SIGKILL does, as far as a file can tell that is written to."""


@dataclass(frozen=True)
class MeanTask:
    """A scorer that only aggregates."""

    name: str = "task"
    direction: str = "maximize"

    def aggregate(self, values: Any) -> Any:
        return score_with_error(MeanOfItems(statistics.fmean), values)

    def contributions(self, values: Any) -> Any:
        return dict(values)


def open_search(
    path: Path,
    evaluator: Any,
    objective_function: ObjectiveFunction,
    items: Mapping[str, tuple[int, ...]],
    /,
    *,
    space: Any = SPACE,
    watch: Callable[[Any], None] = lambda event: None,
    stop: Flag | None = None,
    **budget: Any,
) -> Search:
    """A search with a journal in a directory: a new one, or the one that is there."""
    objectives = len(objective_function.objective_names) or 1
    journal = Journal.open(str(path / "journal.log"), create=True, objectives=objectives)
    return Search(journal, space, evaluator, objective_function, items, BudgetConfig(**budget), watch, stop or Flag())
