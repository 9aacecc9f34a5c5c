"""What the scores of an lm-eval task depend on: its resolved configuration, its items, the examples shown, its code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.scoring.content_keys import callables_within, code_keys, content_key, file_of
from evolve.scoring.scorers.lm_eval.harness_task import HarnessTask

# Where the items come from, which count themselves; and names.
_NOT_COMPARED = frozenset(
    (
        *("task", "task_alias", "tag", "metadata", "custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs"),
        *("training_split", "validation_split", "test_split", "fewshot_split", "process_docs"),
        *("should_decontaminate", "doc_to_decontamination_query"),
    )
)


def resolved_keys(member: HarnessTask, items: Sequence[int]) -> dict[str, str]:
    """The hashes of all that a task's values depend on beside the model.

    Args:
        member: the task, with what the user laid over it.
        items: the documents that are scored.

    Returns:
        What it is, by lm-eval's own names: `doc_to_text`, `filter_list`; `items`; files of code -> hash.
    """
    config = member.task.config
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    settings = {name: _as_data(value) for name, value in fields.items() if name not in _NOT_COMPARED}
    keys = {name: content_key(value) for name, value in settings.items() if value not in (None, "", [], {})}
    keys["metric"] = content_key([str(member.choice), member.direction])
    keys["items"] = content_key([member.documents[item] for item in items])
    if examples := member.examples(items):
        keys["few-shot examples"] = content_key(examples)
    used = [*callables_within({name: _as_data(value) for name, value in fields.items()}), type(member.task)]
    for file in dict.fromkeys(filter(None, map(file_of, used))):
        keys |= code_keys(file)
    return keys


def _as_data(value: Any) -> Any:
    """lm-eval's own objects as mappings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _as_data(inner) for key, inner in value.items()}
    return [_as_data(inner) for inner in value] if isinstance(value, list | tuple) else value
