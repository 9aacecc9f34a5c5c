"""How long an answer may take before its worker is taken to hang: as the file says, or learnt from earlier answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from evolve.evaluation.evaluator import Evaluator, WrappedEvaluator
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.trials.step import FORWARD_AND_BACKWARD
from evolve.trials.trial import Evaluation

FIRST_SECONDS = 6 * 3600.0  # as long as nothing was scored: large models on slow machines
LEAST_SECONDS = 600.0
TIMES_THE_SLOWEST = 10.0

Setting = float | Literal["auto", "none"]


class TimeLimited(WrappedEvaluator):
    """An evaluator whose requests say how long they may take.

    Args:
        evaluator: answers them; what takes longer is a failure of the candidate.
        setting: seconds for a candidate; `none`; or `auto`: ten times as long as the slowest answer so far, item for
            item, and generously more before there is any.
    """

    def __init__(self, evaluator: Evaluator, setting: Setting) -> None:
        super().__init__(evaluator)
        self._setting = setting
        self._slowest: float | None = None  # seconds per item

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """As the evaluator does."""
        for evaluation in self._evaluator.evaluate(
            request and replace(request, time_limit=self.seconds(_item_count(request))) for request in requests
        ):
            self._learn(evaluation)
            yield evaluation

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """As the evaluator does; an item of a step takes as long as three."""
        return self._evaluator.differentiate(
            replace(request, time_limit=self.seconds(FORWARD_AND_BACKWARD * _item_count(request)))
            for request in requests
        )

    def seconds(self, items: int) -> float | None:
        """What a request of so many items may take; None where it may take for ever."""
        if self._setting == "none":
            return None
        if self._setting != "auto":
            return float(self._setting)
        if self._slowest is None:
            return FIRST_SECONDS
        return max(LEAST_SECONDS, TIMES_THE_SLOWEST * self._slowest * items)

    def _learn(self, evaluation: Evaluation) -> None:
        if evaluation.failure is None and evaluation.item_count:
            self._slowest = max(self._slowest or 0.0, evaluation.total_seconds / evaluation.item_count)


def _item_count(request: Request | GradientRequest) -> int:
    return sum(map(len, request.items.values()))
