"""From lm-eval's instances to prepared requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evolve.scoring.errors import TaskError
from evolve.scoring.language_model import (
    GenerationSettings,
    LanguageModel,
    Prepared,
    PreparedContinuation,
    PreparedGeneration,
)
from evolve.scoring.thinking import Thinking

# What lm-eval's models generate at most where a task does not say.
_DEFAULT_MAX_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """An item's lm-eval instances, in the order `process_results` wants, and their tokenised requests.

    `copies` says how often each request is run. `gold` are right answers to the same prompt, whose probability is asked
    for beside what the task asks.
    """

    instances: tuple[Any, ...]
    requests: tuple[Prepared, ...]
    copies: tuple[int, ...]
    gold: tuple[PreparedContinuation, ...] = ()


def prepare_request(model: LanguageModel, instance: Any, thinking: Thinking | None = None) -> Prepared:
    """Tokenise the request of an lm-eval `Instance`.

    Args:
        model: Tokenises.
        instance: The request.
        thinking: What ends the thought before a generated answer.

    Raises:
        TaskError: It is of a kind that is not supported.
    """
    if instance.request_type == "generate_until":
        prompt, settings = instance.args
        return model.prepare_generation(prompt, replace(generation_settings(settings), thinking=thinking))
    if instance.request_type == "loglikelihood":
        context, continuation = instance.args
        return model.prepare_continuation(context, str(continuation))
    if instance.request_type == "loglikelihood_rolling":
        (text,) = instance.args
        return model.prepare_text(text)
    raise TaskError(f"requests of type {instance.request_type!r} are not supported")


def copies_of(instance: Any, request: Prepared) -> int:
    """How often a request is run: as often as the task repeats it where answers are drawn, and else once."""
    varies = isinstance(request, PreparedGeneration) and not request.settings.is_greedy
    return int(instance.repeats) if varies else 1


def generation_settings(settings: dict[str, Any]) -> GenerationSettings:
    """Generation settings as lm-eval's own models understand them.

    Args:
        settings: The task's `generation_kwargs`.

    Raises:
        TaskError: They hold `max_length`, which counts the prompt too, or make no sense.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    if "max_length" in settings:
        raise TaskError("generation_kwargs: max_length is not supported; set max_gen_toks instead")
    try:
        options = dict(normalize_gen_kwargs(settings, _DEFAULT_MAX_NEW_TOKENS))
    except (TypeError, ValueError) as error:  # a number that is none
        raise TaskError(f"generation_kwargs: {error}") from error
    until = options.pop("until")
    wrong = [text for text in until if not isinstance(text, str | None)]
    if wrong:
        raise TaskError(f"generation_kwargs: until: expected texts that end an answer, got {wrong[0]!r}")
    stop = tuple(dict.fromkeys(text for text in until if text))
    max_new_tokens = int(options.pop("max_gen_toks"))
    if max_new_tokens < 1:  # every answer would be empty, and most of them wrong
        raise TaskError(f"generation_kwargs: max_gen_toks must be at least 1, got {max_new_tokens}")
    return GenerationSettings(stop, max_new_tokens, tuple(sorted(options.items())))


def parsed_settings(settings: dict[str, Any] | str) -> dict[str, Any]:
    """Generation settings given as a mapping or as lm-eval's `name=value,name=value`."""
    if isinstance(settings, str):
        from lm_eval.utils import simple_parse_args_string

        return dict(simple_parse_args_string(settings))
    return dict(settings)
