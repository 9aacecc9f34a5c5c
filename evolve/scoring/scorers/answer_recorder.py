"""Listening in on what a model answers while it is scored, so that constraints need no answers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evolve.scoring.language_model import LanguageModel, PreparedGeneration


class AnswerRecorder:
    """A model whose answers are kept.

    Args:
        model: Answers, and does everything else.

    Attributes:
        answers: Every text that it generated, in the order of asking.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.answers: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """As the model's."""
        answers = self._model.generate(requests)
        self.answers += answers
        return answers
