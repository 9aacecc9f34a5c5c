"""How many tokens go through a model for an item, from its tokenizer and the task alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from evolve.scoring import Scorer, ScoringError, TaskError, runs_user_code
from evolve.scoring.backends.pretrained_files import load_tokenizer
from evolve.scoring.backends.request_preparation import RequestPreparation, stated_length
from evolve.scoring.language_model import PreparedContinuation, PreparedGeneration, PreparedText
from merge_core import Checkpoint

ASSUMED = 256
"""Tokens of an item, prompt and answer together, of which only a run would tell."""

_SAMPLE = 16  # items of a task that are looked at
_ASSUMED_LENGTH = 2048


def tokens_of_items(
    scorers: Sequence[Scorer], items: Mapping[str, Sequence[int]], checkpoint: Checkpoint
) -> dict[str, float]:
    """Task name -> tokens of an item, the mean over some: its prompt and the longest answer that the task takes.

    Args:
        scorers: the tasks. One that runs code of the user's is not run for this; its items are assumed.
        items: task name -> ids, in any order.
        checkpoint: the model with the tokenizer.
    """
    found = dict.fromkeys((scorer.name for scorer in scorers), float(ASSUMED))
    with contextlib.suppress(TaskError):  # a merged tokenizer there is none of yet, and what a run will tell
        tokenizer = load_tokenizer(checkpoint.directory)
        for scorer in scorers:
            ids = items[scorer.name]
            if not runs_user_code(scorer) and ids:
                sample = ids[:: max(1, len(ids) // _SAMPLE)][:_SAMPLE]
                counter = _Counter(tokenizer, stated_length(checkpoint.config) or _ASSUMED_LENGTH)
                with contextlib.suppress(_CountedError, ScoringError, TaskError):
                    scorer.score(counter, sample)
                found[scorer.name] = counter.tokens / len(sample) or ASSUMED
    return found


class _CountedError(Exception):
    """Raised in the place of answers."""


class _Counter(RequestPreparation):
    """Counts the tokens of the first requests that it is asked to run, and answers none."""

    model: Any = None
    forward_seconds = 0.0
    tokens = 0

    def generate(self, requests: Sequence[PreparedGeneration]) -> list[str]:
        """Prompts, and answers as long as they can be."""
        self._count(len(one.tokens) + one.settings.max_new_tokens for one in requests)

    def loglikelihood(self, requests: Sequence[PreparedContinuation]) -> list[tuple[float, bool]]:
        """Contexts and continuations."""
        self._count(len(one.context) + len(one.continuation) for one in requests)

    def loglikelihood_rolling(self, requests: Sequence[PreparedText]) -> list[float]:
        """Texts."""
        self._count(len(one.tokens) for one in requests)

    def _count(self, lengths: Iterable[int]) -> NoReturn:
        self.tokens = sum(lengths)
        raise _CountedError
