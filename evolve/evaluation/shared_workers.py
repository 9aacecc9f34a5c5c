"""Searches one after the other on the same workers, which keep their models; what two of them ask is answered once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from evolve.config.machines import RayConfig, WorkersConfig
from evolve.evaluation.evaluator import Evaluator, KnowingEvaluator
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.worker import WorkerSettings
from evolve.trials.trial import Evaluation
from merge_core.recipe.user_methods import own_methods

MOST_ANSWERS = 2000  # that are remembered: how searches open, which is what they have in common

OpenWorkers = Callable[[WorkerSettings, WorkersConfig, RayConfig], Evaluator]
"""Starts what scores recipes."""


class SharedWorkers:
    """Workers that outlive whoever asks them, as long as the next one needs the same.

    Args:
        start: starts others where the next one needs others.
    """

    def __init__(self, start: OpenWorkers) -> None:
        self._start = start
        self._needed: object = None
        self._evaluator: Evaluator | None = None
        self._answers: dict[str, Evaluation | Slopes] = {}

    def open(self, settings: WorkerSettings, workers: WorkersConfig, ray: RayConfig) -> Evaluator:
        """Workers with these settings: those that there are, if they have them.

        Args:
            settings: of each worker; statistics stay in its memory, since files of theirs go with a run.
            workers: how many, and where.
            ray: the cluster.
        """
        # Every worker knows our own methods, whichever of them a search names.
        settings = dataclasses.replace(settings, statistics_cache=None, methods=own_methods(settings.methods))
        needed = settings, workers, ray
        if self._evaluator is None or needed != self._needed:
            self.close()
            self._evaluator, self._needed = self._start(settings, workers, ray), needed
        return _Lent(self._evaluator, self._answers)

    def close(self) -> None:
        """End the workers."""
        evaluator, self._evaluator, self._needed = self._evaluator, None, None
        self._answers = {}
        if evaluator is not None:
            evaluator.close()


class _Lent(KnowingEvaluator):
    """The workers for one who asks; what was answered before is not asked again.

    A failure is: it may have been the machine's.
    """

    def __init__(self, evaluator: Evaluator, answers: dict[str, Evaluation | Slopes]) -> None:
        super().__init__(evaluator)
        self._answers = answers

    def known(self, request: Request) -> Evaluation | None:
        """What anybody was answered who asked the same."""
        found = self._answers.get(_key(request))
        return dataclasses.replace(found, number=request.number) if isinstance(found, Evaluation) else None

    def learn(self, request: Request, answer: Evaluation) -> None:
        """Keep it for the next one who asks."""
        self._keep(_key(request), answer)

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """As the workers; what is known comes first."""
        unknown: list[GradientRequest] = []
        for request in requests:
            found = self._answers.get(_key(request))
            if isinstance(found, Slopes):
                yield dataclasses.replace(found, number=request.number)
            else:
                unknown.append(request)
        keys = {request.number: _key(request) for request in unknown}
        for slopes in self._evaluator.differentiate(unknown):
            self._keep(keys[slopes.number], slopes)
            yield slopes

    def close(self) -> None:
        """The workers stay."""

    def _keep(self, key: str, answer: Evaluation | Slopes) -> None:
        if answer.failure is None and len(self._answers) < MOST_ANSWERS:
            self._answers[key] = answer


def _key(request: Request | GradientRequest) -> str:
    """Everything that an answer depends on."""
    asked: Mapping[str, Any] = {
        name: value for name, value in vars(request).items() if name not in ("number", "time_limit", "label")
    }
    return json.dumps([type(request).__name__, asked], sort_keys=True, default=str)
