"""Tasks that ask the same questions are answered once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from evolve.scoring.language_model import LanguageModel, PreparedContinuation, PreparedGeneration, PreparedText

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class RememberedAnswers:
    """A model that answers a list of requests once, and from memory when the same list comes again.

    Several metrics of one task ask for exactly the same. The weights must not change while it is in use.

    Args:
        model: Answers what is new, and everything that is not a request.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._answered: list[tuple[str, tuple[Any, ...], list[Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """As the model's."""
        return self._answer("generate", requests, self._model.generate)

    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """As the model's."""
        return self._answer("loglikelihood", requests, self._model.loglikelihood)

    def loglikelihood_rolling(self, requests: Sequence[PreparedText]) -> list[float]:
        """As the model's."""
        return self._answer("loglikelihood_rolling", requests, self._model.loglikelihood_rolling)

    def _answer(
        self, kind: str, requests: Sequence[Request], run: Callable[[Sequence[Request]], list[Answer]]
    ) -> list[Answer]:
        asked = tuple(requests)
        # Requests that a task prepared once are the same objects, so that comparing them costs next to nothing.
        for other, before, answers in self._answered:
            if other == kind and before == asked:
                return list(answers)
        fresh = run(requests)
        self._answered.append((kind, asked, list(fresh)))
        return fresh
