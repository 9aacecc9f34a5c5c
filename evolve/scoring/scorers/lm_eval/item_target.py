"""What a model should say of an lm-eval item: its gold answers with their ends, or its gold choice among the others."""

from __future__ import annotations

from typing import Any

from evolve.scoring.backends.text_windows import rolling_windows
from evolve.scoring.language_model import LanguageModel, PreparedContinuation, PreparedGeneration, PreparedText
from evolve.scoring.scorers.lm_eval.item_signal import NATS_PER_CHARACTER, choice_lengths, gold_answers, gold_choices
from evolve.scoring.scorers.lm_eval.requests import PreparedItem
from evolve.scoring.targets import Answer, Target, right_answer


def item_target(
    task: Any, document: Any, metric: str, prepared: PreparedItem, model: LanguageModel, *, is_chat: bool
) -> Target | None:
    """The target of an item, None where nothing is known to be right.

    Args:
        task: An lm-eval task.
        document: The item.
        metric: The task's metric.
        prepared: The item's requests.
        model: Tokenises.
        is_chat: Whether the prompt is a rendered conversation.
    """
    request = prepared.requests[0]
    if isinstance(request, PreparedGeneration):
        prompt = prepared.instances[0].args[0]
        texts = gold_answers(task, document, is_chat=is_chat)
        right = tuple(answer for text in texts for answer in right_answer(model, prompt, text, request))
        return Target(right, prompt=request) if right else None
    if task.OUTPUT_TYPE == "multiple_choice":
        return _choice_target(task, document, metric, prepared)
    if isinstance(request, PreparedText):
        size = float(task.count_bytes(task.doc_to_target(document)))
        windows = rolling_windows(request.tokens, request.prefix_token, model.max_length)
        parts = tuple(PreparedContinuation(*window) for window in windows)
        return Target((Answer(parts, max(1.0, size)),)) if parts else None
    return Target((Answer((request,)),)) if len(prepared.requests) == 1 else None


def _choice_target(task: Any, document: Any, metric: str, prepared: PreparedItem) -> Target | None:
    choices, gold = gold_choices(task, document)
    requests = [request for request in prepared.requests if isinstance(request, PreparedContinuation)]
    units = [1.0] * len(choices)
    if metric in ("acc_norm", "acc_bytes"):
        units = [max(1.0, length) * NATS_PER_CHARACTER for length in choice_lengths(choices, metric)]
    answers = [Answer((request,), unit) for request, unit in zip(requests, units, strict=False)]
    right = {index for index in gold if 0 <= index < len(answers)}
    wrong = tuple(answer for index, answer in enumerate(answers) if index not in right)
    return Target(tuple(answers[index] for index in sorted(right)), wrong) if right and wrong else None
