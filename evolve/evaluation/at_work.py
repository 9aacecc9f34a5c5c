"""Which requests the workers are on at the moment, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from evolve.evaluation.evaluator import Evaluator, WrappedEvaluator
from evolve.evaluation.request import Answered, Asked, GradientRequest, Request, Slopes
from evolve.trials.events import WorkBegun
from evolve.trials.trial import Evaluation


class AtWork(WrappedEvaluator):
    """Passes requests on, and tells which of them have no answer yet.

    Args:
        evaluator: answers them.
        watch: is told when a worker is given one.
    """

    def __init__(self, evaluator: Evaluator, watch: Callable[[WorkBegun], None]) -> None:
        super().__init__(evaluator)
        self._watch = watch
        self._labels: dict[int, str] = {}  # number of a request -> what it is

    @property
    def labels(self) -> Sequence[str]:
        """What the workers are at, the oldest first."""
        return tuple(self._labels.values())

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """As the evaluator does."""
        return self._answered(self._evaluator.evaluate(self._begun(requests, lambda request: request.label)))

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """As the evaluator does."""
        begun = self._begun(requests, lambda _: "a step of the gradient")
        return self._answered(self._evaluator.differentiate(filter(None, begun)))

    def _begun(self, requests: Iterable[Asked | None], label: Callable[[Asked], str]) -> Iterator[Asked | None]:
        self._labels.clear()  # of an earlier caller, who may have left before its answers came
        for request in requests:
            if request is not None:
                self._labels[request.number] = label(request)
                self._watch(WorkBegun(self.labels))
            yield request

    def _answered(self, answers: Iterator[Answered]) -> Iterator[Answered]:
        for answer in answers:
            self._labels.pop(answer.number, None)
            yield answer
