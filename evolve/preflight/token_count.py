"""How many tokens go through a model for an item, from its tokenizer and the task alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from evolve.scoring import Scorer, ScoringError, TaskError, runs_user_code
from evolve.scoring.backends.pretrained_files import load_tokenizer
from evolve.scoring.backends.request_preparation import RequestPreparation, stated_length
from evolve.scoring.language_model import PreparedContinuation, PreparedGeneration, PreparedText
from merge_core import Checkpoint


class ItemTokens(NamedTuple):
    """Tokens of an item, on average.

    Attributes:
        read: of its prompt, or of a text whose probability is asked for.
        written: of the longest answer that the task takes.
    """

    read: float
    written: float

    @property
    def total(self) -> float:
        """All that go through the model."""
        return self.read + self.written


ASSUMED = ItemTokens(128, 128)
"""Of an item of which only a run would tell."""

_SAMPLE = 16  # items of a task that are looked at
_ASSUMED_LENGTH = 2048


def tokens_of_items(
    scorers: Sequence[Scorer], items: Mapping[str, Sequence[int]], checkpoint: Checkpoint
) -> dict[str, ItemTokens]:
    """Task name -> tokens of an item, the mean over some.

    Args:
        scorers: the tasks. One that runs code of the user's is not run for this; its items are assumed.
        items: task name -> ids, in any order.
        checkpoint: the model with the tokenizer.
    """
    found = dict.fromkeys((scorer.name for scorer in scorers), ASSUMED)
    with contextlib.suppress(TaskError):  # a merged tokenizer there is none of yet, and what a run will tell
        tokenizer = load_tokenizer(checkpoint.directory)
        for scorer in scorers:
            ids = items[scorer.name]
            if not runs_user_code(scorer) and ids:
                sample = ids[:: max(1, len(ids) // _SAMPLE)][:_SAMPLE]
                counter = _Counter(tokenizer, stated_length(checkpoint.config) or _ASSUMED_LENGTH)
                with contextlib.suppress(_CountedError, ScoringError, TaskError):
                    scorer.score(counter, sample)
                if counter.read:
                    found[scorer.name] = ItemTokens(counter.read / len(sample), counter.written / len(sample))
    return found


class _CountedError(Exception):
    """Raised in the place of answers."""


class _Counter(RequestPreparation):
    """Counts the tokens of the first requests that it is asked to run, and answers none."""

    model: Any = None
    forward_seconds = 0.0
    read = written = 0

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """Prompts, and answers as long as they can be."""
        self.generate_tokens(requests)

    def generate_tokens(self, requests: Sequence[PreparedGeneration]) -> NoReturn:
        """As `generate`."""
        self.written = sum(one.settings.max_new_tokens for one in requests)
        self._count(len(one.tokens) for one in requests)

    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """Contexts and continuations."""
        self._count(len(one.context) + len(one.continuation) for one in requests)

    def loglikelihood_rolling(self, requests: Sequence[PreparedText]) -> list[float]:
        """Texts."""
        self._count(len(one.tokens) for one in requests)

    def _count(self, lengths: Iterable[int]) -> NoReturn:
        self.read = sum(lengths)
        raise _CountedError
