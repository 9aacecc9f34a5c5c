"""The files of mergekit-evolve, read as the search.yml that means the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from evolve.config.section import Section


class MergekitSettings(Section):
    """What stands beside `genome:` in mergekit-evolve's files."""

    limit: int | None = Field(default=None, ge=1, description="Items per task.")
    num_fewshot: int | None = Field(default=None, ge=0, description="Examples in every prompt.")
    shuffle: bool = Field(default=False, description="A sample of the items instead of the first ones.")
    random_init: bool = Field(default=False, description="Start at a random genotype.")
    apply_chat_template: bool = Field(default=True, description="Format prompts with the tokenizer's template.")
    fewshot_as_multiturn: bool = Field(default=True, description="Examples as turns of the conversation.")


def _sign_as_direction(task: dict[str, Any]) -> dict[str, Any]:
    """A negative weight is how mergekit-evolve says that lower is better; it always adds the scores up as they are."""
    weight = task.get("weight")
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        return {"direction": "maximize", **task}
    return {"direction": "minimize" if weight < 0 else "maximize", **task, "weight": abs(weight)}


def mergekit_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a mergekit-evolve file that stand beside its `genome:`."""
    return {key: raw[key] for key in MergekitSettings.model_fields if key in raw}


def from_mergekit(raw: Mapping[str, Any], settings: MergekitSettings) -> dict[str, Any]:
    """A mergekit-evolve file as the search.yml that means the same; keys of ours in it are kept.

    Its first `limit` items (a sample with `shuffle`) score the candidates; without `limit` all do, and then none are
    left to validate on.

    Args:
        raw: the file.
        settings: its own keys.
    """
    search = {key: value for key, value in raw.items() if key not in MergekitSettings.model_fields}
    shared = {
        "num_fewshot": settings.num_fewshot,
        "apply_chat_template": settings.apply_chat_template,
        "fewshot_as_multiturn": settings.fewshot_as_multiturn,
    }
    tasks = search.get("tasks")
    if isinstance(tasks, list):
        named = [{"name": task} if isinstance(task, str) else task for task in tasks]
        search["tasks"] = [
            {"metric": "acc,none", **shared, **_sign_as_direction(task)}
            if isinstance(task, dict) and "name" in task
            else task
            for task in named
        ]
    order = "random" if settings.shuffle else "first"
    items: dict[str, Any] = {"order": order}
    items |= {"search": settings.limit} if settings.limit is not None else {"held_out": 0}
    search.setdefault("items", items)
    search.setdefault("random_init", settings.random_init)
    search.setdefault("optimizer", {"name": "cma", "sigma": 1 / 6})
    return search
