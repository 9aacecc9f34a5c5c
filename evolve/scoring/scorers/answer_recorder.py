"""Listening in on what a model answers while it is scored, so that constraints need no answers of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evolve.scoring.language_model import LanguageModel, PreparedContinuation, PreparedGeneration


class AnswerRecorder:
    """A model whose answers are kept.

    Args:
        model: Answers, and does everything else.
        restored: Gives the model as it was merged, if code of the user's has changed it.

    Attributes:
        answers: Every text that it generated, in the order of asking.
        written: Prompts and answers, in tokens.
        lengths: Of every answer, in tokens, the one that ended it included.
        asked: Every continuation whose probability was asked for, in the order of asking.
    """

    def __init__(self, model: LanguageModel, restored: Callable[[], LanguageModel] | None = None) -> None:
        self._model: Any = model
        self._restored = restored
        self.answers: list[str] = []
        self.written: list[tuple[tuple[int, ...], list[int]]] = []
        self.lengths: list[int] = []
        self.asked: list[PreparedContinuation] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def restore(self) -> None:
        """Be the model as it was merged, before code of the user's is given it again."""
        if self._restored is not None:
            self._model = self._restored()

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """As the model's."""
        written = self._model.generate_tokens(requests)
        answers = [self._model.answer_text(one, tokens) for one, tokens in zip(requests, written, strict=True)]
        self.written += [(request.tokens, tokens) for request, tokens in zip(requests, written, strict=True)]
        self.lengths += map(len, written)
        self.answers += answers
        return answers

    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """As the model's."""
        self.asked += requests
        return list(self._model.loglikelihood(requests))

    def continuations(self, count: int) -> list[PreparedContinuation]:
        """The first requests, so many of a kind at most; what the model wrote continues its prompt."""
        written = [PreparedContinuation(prompt, tuple(tokens)) for prompt, tokens in self.written if prompt and tokens]
        return [*self.asked[:count], *written[:count]]
