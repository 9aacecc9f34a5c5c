"""Results of a damaged journal that lost their place there: used where they are asked for again, instead of scoring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evolve.evaluation.evaluator import Evaluator, KnowingEvaluator
from evolve.evaluation.request import Request
from evolve.trials.trial import Evaluation


class SavedResults(KnowingEvaluator):
    """An evaluator that knows some answers, and asks another one for the rest.

    Args:
        evaluator: the other one.
        saved: recipes and what they scored.
    """

    def __init__(self, evaluator: Evaluator, saved: Sequence[tuple[Mapping[str, Any], Evaluation]]) -> None:
        super().__init__(evaluator)
        self._saved = {_key(recipe): evaluation for recipe, evaluation in saved}

    def known(self, request: Request) -> Evaluation | None:
        """What was scored on exactly the items that are asked for, and in one piece; a failure is tried again."""
        found = self._saved.get(_key(request.recipe))
        wanted = {(name, item) for name, items in request.items.items() for item in items}
        if found is None or found.failure is not None or found.stopped is not None or found.reused_items:
            return None
        if found.asked_items != wanted or (request.keeps_answers and not found.target_counts):
            return None
        return replace(found, number=request.number)

    def learn(self, request: Request, answer: Evaluation) -> None:
        """Nothing: the journal has it."""


def _key(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)
