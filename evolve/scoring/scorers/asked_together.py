"""The requests of all tasks in the same batches, instead of one task after another.

A small batch takes nearly as long as a large one: decoding on a card reads all weights for every token of a batch, and
a small model on a CPU takes longer to be called than to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from evolve.scoring.language_model import (
    LanguageModel,
    Prepared,
    PreparedContinuation,
    PreparedGeneration,
    PreparedText,
)

Request = TypeVar("Request", bound=Prepared)

Known = dict[int, tuple[Prepared, Any]]
"""The identity of a request → the request, and what the model says: tokens, or what `LanguageModel` tells of it."""


@runtime_checkable
class TellsRequests(Protocol):
    """A scorer that knows what it is going to ask."""

    def prepared_requests(self, model: LanguageModel, item_ids: Sequence[int]) -> Sequence[Prepared]:
        """What `score` asks of the model: the very objects, as it prepares each only once."""


def ask_together(model: LanguageModel, requests: Iterable[Prepared]) -> Known:
    """What a model says to the requests of all tasks; answers that are drawn at random are left to each task.

    Args:
        model: Answers.
        requests: In any order.

    Raises:
        ScoringError, TaskError: As the model does.
    """
    queues: dict[type, list[Any]] = {PreparedGeneration: [], PreparedContinuation: [], PreparedText: []}
    for request in requests:
        if not isinstance(request, PreparedGeneration) or request.settings.is_greedy:
            queues[type(request)].append(request)
    asked: dict[type, Callable[[Any], Sequence[Any]]] = {
        PreparedGeneration: model.generate_tokens,
        PreparedContinuation: model.loglikelihood,
        PreparedText: model.loglikelihood_rolling,
    }
    return {
        id(request): (request, answer)
        for kind, queue in queues.items()
        if queue
        for request, answer in zip(queue, asked[kind](queue), strict=True)
    }


class KnownAnswers:
    """A model that is asked what it has answered already, and answers anything else when it is asked.

    Args:
        model: Of the same weights as then.
        known: From `ask_together`.
    """

    def __init__(self, model: LanguageModel, known: Known) -> None:
        self._model = model
        self._known = known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """As the model's."""
        written = self.generate_tokens(requests)
        return [self._model.answer_text(request, tokens) for request, tokens in zip(requests, written, strict=True)]

    def generate_tokens(self, requests: Sequence[PreparedGeneration]) -> list[list[int]]:
        """As the model's."""
        return self._answers(requests, self._model.generate_tokens)

    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """As the model's."""
        return self._answers(requests, self._model.loglikelihood)

    def loglikelihood_rolling(self, requests: Sequence[PreparedText]) -> list[float]:
        """As the model's."""
        return self._answers(requests, self._model.loglikelihood_rolling)

    def _answers(self, requests: Sequence[Request], ask: Callable[[Sequence[Request]], list[Any]]) -> list[Any]:
        if all(id(request) in self._known for request in requests):
            return [self._known[id(request)][1] for request in requests]
        return ask(requests)
