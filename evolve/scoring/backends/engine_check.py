"""Whether an engine that is given its weights anew for every candidate still says of an early one what it said then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.scoring.errors import ScoringError
from evolve.scoring.language_model import LanguageModel, PreparedContinuation

CHECK_TEXT = "The quick brown fox jumps over 13 lazy dogs, and the answer is 42."
CHECK_TOKENS = 32
"""The first ones of the text are asked for: a tokenizer of few tokens makes more of it than a small model reads."""

MOST_RELOADS = 64
"""Between two checks. The first is after the second candidate, and the distance doubles until here: what a reload
breaks it mostly breaks at once, and a long search pays for one merge in 64."""


class EngineCheck:
    """An early candidate, what an engine was asked of it, and what it said.

    Args:
        recipe: of the candidate, which is in the engine.
        requests: what it was asked, beside which it is asked for the probability of a text.
        model: the engine.
        tolerance: how far its log-probabilities may be apart when it is asked again, nats a token.

    Attributes:
        recipe: to be written into the engine before `difference` is asked.
    """

    def __init__(
        self,
        recipe: Mapping[str, Any],
        requests: Sequence[PreparedContinuation],
        model: LanguageModel,
        tolerance: float,
    ) -> None:
        self.recipe = recipe
        self._tolerance = tolerance
        text = model.prepare_continuation("", CHECK_TEXT)
        self._requests = [*requests, PreparedContinuation(text.context, text.continuation[:CHECK_TOKENS])]
        self._expected = self._answers(model)
        self._reloads = 0
        self._next = 1

    def reloaded(self) -> None:
        """The engine was given weights."""
        self._reloads += 1

    @property
    def is_due(self) -> bool:
        """Whether the early candidate should be asked again."""
        return self._reloads >= self._next

    def difference(self, model: LanguageModel) -> float | None:
        """How far the answers to the early candidate's requests are from those that it gave; None within the tolerance.

        Args:
            model: the engine, with the early candidate in it.

        Returns:
            Nats a token; infinite where there is no number any more.
        """
        self._next = self._reloads + min(self._reloads, MOST_RELOADS)
        try:
            found = self._answers(model)
        except ScoringError:
            return math.inf
        apart = sum(abs(a - b) for a, b in zip(found, self._expected, strict=True))
        apart /= sum(len(request.continuation) for request in self._requests)
        return apart if apart > self._tolerance else None

    def _answers(self, model: LanguageModel) -> list[float]:
        return [logprob for logprob, _ in model.loglikelihood(self._requests)]
