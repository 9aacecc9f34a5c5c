"""How near the model was to the right answer of an lm-eval item: the continuous signal beside the metric.

What the signals mean, and how they are mixed with the metric, is in `evolve.scoring.scores.signals`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evolve.scoring.errors import ScoringError
from evolve.scoring.language_model import PreparedContinuation
from evolve.scoring.scorers.lm_eval.requests import PreparedItem
from evolve.scoring.scores.signals import likelihood_signal, margin_signal

# Margins at which a choice counts as clearly ahead: a factor e between two answers, and, where the metric divides by
# the answer's length, a tenth of a nat for each character (English text has about 0.6 nats per character).
_NATS = 1.0
NATS_PER_CHARACTER = 0.1


def has_signal(task: Any, documents: Sequence[Any]) -> bool:
    """Whether items of an lm-eval task have a signal, as far as the first of them tell.

    Args:
        task: An lm-eval task.
        documents: Some of its items.
    """
    if task.OUTPUT_TYPE == "generate_until":
        return any(gold_answers(task, document, is_chat=False) for document in documents)
    if task.OUTPUT_TYPE == "multiple_choice":
        return any(gold_choices(task, document)[1] for document in documents)
    return task.OUTPUT_TYPE in ("loglikelihood", "loglikelihood_rolling")


def item_signal(
    task: Any, document: Any, metric: str, prepared: PreparedItem, answers: Sequence[Any], gold: Sequence[float]
) -> float | None:
    """The signal of an item, None where it has none.

    Args:
        task: An lm-eval task.
        document: The item.
        metric: The task's metric.
        prepared: The item's requests.
        answers: The model's answer to each.
        gold: The log-likelihoods of `prepared.gold`.

    Raises:
        ScoringError: The margin of a choice is not finite.
    """
    if task.OUTPUT_TYPE == "multiple_choice":
        choices, right = gold_choices(task, document)
        return choice_signal([answer[0] for answer in answers], choices, right, metric)
    if task.OUTPUT_TYPE == "generate_until":
        tokens = [len(request.continuation) for request in prepared.gold]
        return max(map(likelihood_signal, gold, tokens), default=None)
    request = prepared.requests[0]
    if len(answers) == 1 and isinstance(request, PreparedContinuation):
        return likelihood_signal(answers[0][0], len(request.continuation))
    if len(answers) == 1 and task.OUTPUT_TYPE == "loglikelihood_rolling":
        return likelihood_signal(answers[0], task.count_bytes(task.doc_to_target(document)))
    return None


def choice_signal(
    log_likelihoods: Sequence[float], choices: Sequence[str], gold: Sequence[int], metric: str
) -> float | None:
    """How far the gold choice is ahead of the best wrong one, None where there is no right or no wrong choice.

    Args:
        log_likelihoods: Of each choice, in nats; for `acc_mutual_info` followed by those without the question.
        choices: Their texts, by whose length `acc_norm` and `acc_bytes` divide.
        gold: The numbers of the right choices.
        metric: The task's metric, whose normalisation is used.

    Raises:
        ScoringError: The margin is not finite.
    """
    scores = np.array(log_likelihoods[: len(choices)], dtype=np.float64)
    scale = _NATS
    if metric == "acc_mutual_info" and len(log_likelihoods) == 2 * len(choices):
        scores = scores - np.array(log_likelihoods[len(choices) :])
    elif metric in ("acc_norm", "acc_bytes"):
        scores, scale = scores / np.array(choice_lengths(choices, metric), dtype=np.float64), NATS_PER_CHARACTER
    right = sorted({index for index in gold if 0 <= index < len(choices)})
    wrong = [index for index in range(len(choices)) if index not in right]
    if not right or not wrong:
        return None
    margin = float(scores[right].max() - scores[wrong].max())
    if not math.isfinite(margin):
        raise ScoringError(f"the margin of the right choice is {margin}")
    return margin_signal(margin, scale)


def gold_answers(task: Any, document: Any, *, is_chat: bool) -> list[str]:
    """The right answers of a generation item, as they would follow the prompt; empty where it has none.

    Args:
        task: An lm-eval task.
        document: The item.
        is_chat: Whether the prompt is a rendered conversation, after which no delimiter stands.
    """
    gold = task.doc_to_target(document)
    if task.get_config("doc_to_choice") is not None and isinstance(gold, int):
        gold = task.doc_to_choice(document)[gold]
    delimiter = "" if is_chat else str(task.get_config("target_delimiter") or "")
    texts = [str(one) for one in (gold if isinstance(gold, list) else [gold]) if one is not None]
    return [delimiter + text for text in texts if text.strip()]


def choice_lengths(choices: Sequence[str], metric: str) -> list[int]:
    """By what `acc_norm` and `acc_bytes` divide the log-likelihoods of choices: characters or bytes."""
    return [len(text if metric == "acc_norm" else text.encode()) for text in choices]


def gold_choices(task: Any, document: Any) -> tuple[Sequence[str], list[int]]:
    """The choices of a multiple-choice item and the numbers of the right ones, as lm-eval reads them."""
    choices = task.doc_to_choice(document)
    gold = task.doc_to_text(document) if getattr(task, "multiple_input", 0) else task.doc_to_target(document)
    golds = gold if isinstance(gold, list) else [gold]
    numbers = [choices.index(one) if isinstance(one, str) and one in choices else one for one in golds]
    return choices, [int(number) for number in numbers if isinstance(number, int | np.integer)]
