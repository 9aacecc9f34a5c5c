"""An lm-eval task with what the user says about it laid over its own configuration."""

from __future__ import annotations

from typing import Any

from evolve.scoring.errors import TaskError
from evolve.scoring.scorers.lm_eval.config import LmEvalTask
from evolve.scoring.scorers.lm_eval.requests import generation_settings, parsed_settings


def configure(task: Any, config: LmEvalTask, label: str, seed: int) -> None:
    """Set few-shot examples, generation settings and repeats.

    Args:
        task: An lm-eval `Task`, which is changed.
        config: What the user says about it.
        label: Its name in errors.
        seed: Of the few-shot examples.

    Raises:
        TaskError: It cannot be run here, or not so.
    """
    if getattr(task, "UNSAFE_CODE", False) and not config.confirm_run_unsafe_code:
        raise TaskError(
            f"task {label!r}: it executes code that the model writes. In a sandbox, set confirm_run_unsafe_code: true."
        )
    if getattr(task, "MULTIMODAL", False):
        raise TaskError(f"task {label!r}: it needs images or sound, which are not supported")
    if config.num_fewshot is not None:
        task.set_config(key="num_fewshot", value=config.num_fewshot)
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    is_drawn = False
    if generates(task):
        if config.gen_kwargs is not None:
            task.set_config(key="generation_kwargs", value=parsed_settings(config.gen_kwargs), update=True)
        try:
            is_drawn = not generation_settings(task.get_config("generation_kwargs") or {}).is_greedy
        except TaskError as error:
            raise TaskError(*(f"task {label!r}: {found}" for found in error.problems)) from error
    if config.repeats is not None:
        if not is_drawn:
            raise TaskError(
                f"task {label!r}: repeats: {config.repeats} needs answers that are drawn, or all of an item are the "
                "same. Set gen_kwargs: {do_sample: true, temperature: 0.6}, or remove repeats"
            )
        task.set_config(key="repeats", value=config.repeats)
    task.set_fewshot_seed(seed=seed if config.fewshot_seed is None else config.fewshot_seed)


def generates(task: Any) -> bool:
    """Whether the model's answers are texts."""
    return bool(task.get_config("output_type") == "generate_until")
