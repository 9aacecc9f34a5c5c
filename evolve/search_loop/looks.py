"""Looks: recipes scored on a few items before they are trials, which then need only the other items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evolve.search_loop.ledger import identity
from evolve.trials.trial import Evaluation


class Looks:
    """What looks found, by recipe.

    Args:
        items: task name -> ids of all items that a trial is scored on.
    """

    def __init__(self, items: Mapping[str, tuple[int, ...]]) -> None:
        self._items = items
        self._found: dict[bytes, Evaluation] = {}

    def add(self, recipe: Mapping[str, Any], evaluation: Evaluation) -> None:
        """Remember one; not where it failed, nor with constraints, which are measured on all of a model's answers."""
        if evaluation.failure is None and not evaluation.constraints:
            self._found[identity(recipe)] = evaluation

    def unseen(self, recipe: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """The items that no look at a recipe was on, of the tasks that have some: of none there is no score."""
        looked = self._find(recipe)
        if looked is None:
            return dict(self._items)
        found = {name: {*looked.scores.get(name, ()), *looked.skipped.get(name, ())} for name in self._items}
        left = {name: tuple(item for item in items if item not in found[name]) for name, items in self._items.items()}
        return {name: items for name, items in left.items() if items}

    def completed(self, recipe: Mapping[str, Any], evaluation: Evaluation) -> Evaluation:
        """An evaluation together with the look at the same recipe, if there was one and it has a result."""
        looked = self._find(recipe)
        if looked is None or evaluation.failure is not None or evaluation.stopped is not None:
            return evaluation
        return evaluation.completed(looked)

    def _find(self, recipe: Mapping[str, Any]) -> Evaluation | None:
        return self._found.get(identity(recipe)) if self._found else None
