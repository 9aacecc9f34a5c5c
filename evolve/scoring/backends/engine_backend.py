"""What every engine does alike: all answers come of tokens written after prompts, and of scored continuations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from evolve.scoring.backends.request_preparation import RequestPreparation
from evolve.scoring.backends.text_windows import rolling_windows
from evolve.scoring.language_model import PreparedContinuation, PreparedGeneration, PreparedText

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""A context and its continuation, in token ids."""


class EngineBackend(RequestPreparation, ABC):
    """A language model on an engine."""

    @abstractmethod
    def generate_tokens(self, requests: Sequence[PreparedGeneration]) -> list[list[int]]:
        """As `generate`, in token ids, with the token that ended each answer."""

    @abstractmethod
    def score(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Each continuation's log-probability and whether it is what greedy decoding would write.

        Raises:
            ScoringError: The model's logits are not finite, or a continuation is longer than the model's input.
        """

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """Continue each prompt up to its stop strings.

        A prompt too long for the model loses its beginning, so that the longest answer still fits.

        Raises:
            TaskError: The longest answer alone does not fit the model, or the engine has no such generation option.
            ScoringError: The model's logits are not finite.
        """
        written = self.generate_tokens(requests)
        return [self.answer_text(request, tokens) for request, tokens in zip(requests, written, strict=True)]

    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """As `score`, of prepared requests."""
        return self.score([(request.context, request.continuation) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[PreparedText]) -> list[float]:
        """Each text's log-probability, in windows where it is longer than the model's input."""
        windows = [rolling_windows(request.tokens, request.prefix_token, self.max_length) for request in requests]
        scores = iter(self.score([window for text in windows for window in text]))
        return [sum(next(scores)[0] for _ in text) for text in windows]
