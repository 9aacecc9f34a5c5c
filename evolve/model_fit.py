"""Whether the tasks fit the models, from configs and tokenizer files alone: what every candidate would fail at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evolve.problems import Problem
from evolve.search_space import Space
from merge_core import METHODS, Checkpoint, MergeError, Recipe, build_plan
from merge_core.chat_template import read_chat_template
from tasks import TaskConfig
from tasks.request_preparation import stated_length


def misfits(
    tasks: Sequence[TaskConfig], template: Mapping[str, Any], model: str, checkpoints: Mapping[str, Checkpoint]
) -> Iterator[Problem]:
    """Every task that no candidate could be scored on.

    Args:
        tasks: of the search.
        template: its recipe.
        model: whose config and tokenizer a candidate has.
        checkpoints: every model.
    """
    checkpoint = checkpoints[model]
    has_template = "chat_template" in template or read_chat_template(checkpoint.directory) is not None
    length = stated_length(checkpoint.config)
    for index, task in enumerate(tasks):
        if getattr(task, "apply_chat_template", False) is True and not has_template:
            yield Problem(
                ("tasks", index),
                f"apply_chat_template is on, and {model} has no chat template. Set apply_chat_template: false, or give "
                "the recipe a chat_template",
            )
        if task.longest_input is not None and length is not None:
            setting, longest = task.longest_input
            if longest > length:
                message = f"{longest} is longer than the context of {model}, {length} tokens. Ask for less"
                yield Problem(("tasks", index, *setting), message)


def failing_corners(space: Space, checkpoints: Mapping[str, Checkpoint]) -> Iterator[str]:
    """A line when candidates near an end of all ranges would fail: `della` needs room around its density.

    Args:
        space: of the search.
        checkpoints: its models.
    """
    for corner in (0.02, 0.98):
        try:
            recipe = Recipe.from_mapping(space.decode([corner] * len(space.coordinates)))
            jobs = build_plan(recipe, checkpoints, 0).jobs
        except MergeError:
            continue  # the start is sound; what fails elsewhere is each candidate's own affair
        check = METHODS[recipe.merge_method].fault
        own = (dict(source.parameters) for job in jobs for source in job.inputs if source.parameters)
        fault = next((found for values in own if (found := check(values))), None) if check is not None else None
        if fault is not None:
            yield f"candidates near an end of the ranges fail: {recipe.merge_method}: {fault}, or narrow a range"
