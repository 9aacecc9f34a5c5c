"""What a model should say of an item, as tokens: what the gradient of merge weights raises the probability of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

from evolve.scoring.language_model import LanguageModel, PreparedContinuation, PreparedGeneration

WrittenAnswers = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""Prompts and answers in tokens; a prompt is empty where the item knows it."""

ANSWER_UNIT = 32
"""Tokens of an answer that the model writes itself beyond which its length is divided out: the probability of five
hundred right tokens in a row is nothing that a step could raise."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text that a model may give a probability to.

    Attributes:
        parts: The tokens, each with its context; their log-probabilities add up.
        units: What the sum is divided by: bytes of a text, characters where a metric divides by them, else 1.
    """

    parts: tuple[PreparedContinuation, ...]
    units: float = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """The right answers to an item, and what else there was to choose from.

    The probability of being right is that of any of the right answers: as a share of all the answers where there are
    wrong ones (the expected accuracy of a multiple choice), else by itself (the expected exact match of an answer that
    is drawn from the model, ends included).

    Attributes:
        right: At least one.
        wrong: Of a multiple choice.
        prompt: What the model continues where it writes the answer itself; None where it does not.
    """

    right: tuple[Answer, ...]
    wrong: tuple[Answer, ...] = ()
    prompt: PreparedGeneration | None = None

    def calls_right(self, tokens: Sequence[int]) -> bool:
        """Whether an answer in tokens is, to the last of them, one that the task has."""
        return any(answer.parts[-1].continuation == tuple(tokens) for answer in self.right)

    def with_written(self, written: WrittenAnswers, keep_gold: bool) -> Self:
        """The same item with answers that models wrote and that were right.

        Args:
            written: Prompts, which are the item's own, and answers, each with the token that ended it.
            keep_gold: Whether the answers that the task has count as well.
        """
        if self.prompt is None or not written:
            return self
        found = [_written_answer(self.prompt.tokens, tokens) for _, tokens in dict.fromkeys(written)]
        kept = [answer for answer in self.right if keep_gold and answer not in found]
        return replace(self, right=(*found, *kept))


@runtime_checkable
class HasTargets(Protocol):
    """A scorer whose items have right answers that are known beforehand."""

    def targets(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, Target]:
        """The target of each item; one without a right answer is left out."""


def written_target(written: WrittenAnswers) -> Target:
    """What models wrote, as the target of an item of which nothing else is known."""
    return Target(tuple(_written_answer(prompt, tokens) for prompt, tokens in dict.fromkeys(written)))


def _written_answer(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Answer:
    return Answer((PreparedContinuation(prompt, tokens),), max(1.0, len(tokens) / ANSWER_UNIT))


def right_answer(model: LanguageModel, prompt: str, text: str, request: PreparedGeneration) -> tuple[Answer, ...]:
    """A right answer with every end that it may have: which of them a model writes only the model knows.

    Args:
        model: Tokenises.
        prompt: What the model continues.
        text: The answer as it would follow.
        request: The prompt as the model gets it, and what stops it.
    """
    continuation = model.prepare_answer(prompt, text)
    length = len(continuation.continuation)
    if length >= request.settings.max_new_tokens:  # then its length ends it, or it is longer than any that is written
        fits = length == request.settings.max_new_tokens
        return (Answer((continuation,), max(1.0, length / ANSWER_UNIT)),) if fits else ()
    ended = [replace(continuation, continuation=(*continuation.continuation, end)) for end in model.end_tokens]
    ended += [model.prepare_answer(prompt, text + stop) for stop in request.settings.stop]
    unique = dict.fromkeys(ended or [continuation])
    return tuple(Answer((one,), max(1.0, len(one.continuation) / ANSWER_UNIT)) for one in unique)
