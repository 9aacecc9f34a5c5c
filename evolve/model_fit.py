"""Whether the tasks fit the models, from configs and tokenizer files alone: what every candidate would fail at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evolve.config_file import SearchFile
from merge_core import Checkpoint
from merge_core.chat_template import read_chat_template
from tasks import TaskConfig
from tasks.needle_scorer import NeedleTask
from tasks.request_preparation import stated_length


def misfits(
    file: SearchFile, tasks: tuple[TaskConfig, ...], template: Mapping[str, Any], model: str, checkpoint: Checkpoint
) -> Iterator[str]:
    """One line for every task that no candidate could be scored on.

    Args:
        file: the search.
        tasks: its tasks.
        template: its recipe.
        model: whose config and tokenizer a candidate has.
        checkpoint: that model.
    """
    has_template = "chat_template" in template or read_chat_template(checkpoint.directory) is not None
    length = stated_length(checkpoint.config)
    for index, task in enumerate(tasks):
        if getattr(task, "apply_chat_template", False) is True and not has_template:
            yield file.place(
                ("tasks", index),
                f"apply_chat_template is on, and {model} has no chat template. Set apply_chat_template: false, or give "
                "the recipe a chat_template",
            )
        if isinstance(task, NeedleTask) and length is not None and max(task.needle.lengths) > length:
            yield file.place(
                ("tasks", index, "needle", "lengths"),
                f"{max(task.needle.lengths)} is longer than the context of {model}, {length} tokens. Ask for less",
            )
