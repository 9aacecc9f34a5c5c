"""Who scores recipes: one protocol, in this process or in Ray actors, with the same results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.trials.trial import Evaluation


class Evaluator(Protocol):
    """Scores recipes. A candidate that cannot be scored is an `Evaluation` with a failure, never an exception."""

    workers: int

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """Yield in the order of completion; take the next request only when a worker is free for it.

        None stands for a request that there will be when another is finished: the worker waits until then.
        """

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """As `evaluate`, for gradients."""

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """The hash of the model that a worker scores for this recipe, in the precision it is saved in."""

    def close(self) -> None:
        """Free the workers."""


class InProcessEvaluator:
    """One worker, in this process: for one GPU, for debugging, and for machines where Ray does not run.

    Args:
        settings: of the worker.
        on_read: as of a `Worker`.
    """

    workers = 1

    def __init__(self, settings: WorkerSettings, on_read: Callable[[int, int], None] | None = None) -> None:
        self._worker = Worker(settings, on_read)
        self._worker.start()

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """One after the other, so that none has to wait."""
        for request in filter(None, requests):
            answer = self._worker.evaluate(request)
            if answer.unforeseen:  # by an engine that was started anew, it may be none
                answer = self._worker.evaluate(request)
            yield answer

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """One after the other."""
        for request in requests:
            yield self._worker.differentiate(request)

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """Merge the recipe into the live model and hash that."""
        return self._worker.fingerprint(recipe)

    def close(self) -> None:
        """End the worker's engine."""
        self._worker.close()


class WrappedEvaluator:
    """Passes on what it is asked to another evaluator; whoever does something beside that overrides it.

    Args:
        evaluator: the other one.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.workers = evaluator.workers
        self._evaluator = evaluator

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """As the other one."""
        return self._evaluator.evaluate(requests)

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """As the other one."""
        return self._evaluator.differentiate(requests)

    def fingerprint(self, recipe: Mapping[str, Any]) -> str:
        """As the other one."""
        return self._evaluator.fingerprint(recipe)

    def close(self) -> None:
        """As the other one."""
        self._evaluator.close()


class KnowingEvaluator(WrappedEvaluator, ABC):
    """Knows some answers itself, and asks another evaluator for the rest."""

    @abstractmethod
    def known(self, request: Request) -> Evaluation | None:
        """The answer to a request, where it is known."""

    @abstractmethod
    def learn(self, request: Request, answer: Evaluation) -> None:
        """Take notice of an answer of the other evaluator."""

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """As the other one; what is known comes at once."""
        waiting = iter(requests)
        known: list[Evaluation] = []
        asked: dict[int, Request] = {}

        def unknown() -> Iterator[Request | None]:
            for request in waiting:
                if request is not None:
                    if (found := self.known(request)) is not None:
                        known.append(found)
                        return  # whoever asks may wait for this one before there is another request
                    asked[request.number] = request
                yield request

        while True:
            for evaluation in self._evaluator.evaluate(unknown()):
                self.learn(asked.pop(evaluation.number), evaluation)
                yield evaluation
            if not known:
                return
            yield known.pop()
