"""The files of mergekit-evolve, read as the search.yml that means the same."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from evolve.config.schema import SearchConfig
from evolve.config.section import Section
from evolve.problems import Place, Problem
from evolve.scoring import KINDS
from evolve.space.genome_space import GenomeDefinition

DEFAULT_METRIC = "acc,none"


class MergekitSettings(Section):
    """What stands beside `genome:` in mergekit-evolve's files."""

    limit: int | None = Field(default=None, ge=1, description="Items per task.")
    num_fewshot: int | None = Field(default=None, ge=0, description="Few-shot examples per prompt.")
    shuffle: bool = Field(default=False, description="Use a random sample of the items instead of the first ones.")
    random_init: bool = Field(default=False, description="Start at a random genotype.")
    apply_chat_template: bool = Field(default=True, description="Format prompts with the tokenizer's chat template.")
    fewshot_as_multiturn: bool = Field(default=True, description="Few-shot examples as turns of the conversation.")


def without_ignored(raw: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """A mergekit-evolve file without the keys that mean nothing, which it passes over; and these, as mistakes.

    Args:
        raw: the file; keys of ours in it mean what they do in a search.yml.
    """
    ignored: list[Problem] = []

    def known_part(value: Any, place: Place, *models: type[BaseModel]) -> Any:
        known = {name for model in models for name in model.model_fields}
        if not isinstance(value, Mapping):
            return value
        for key in value:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                fix = f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(known))}"
                ignored.append(Problem((*place, key), f"unknown key. {fix}"))
        return {key: content for key, content in value.items() if key in known}

    search: dict[str, Any] = known_part(raw, (), SearchConfig, MergekitSettings)
    search["genome"] = known_part(search.get("genome"), ("genome",), GenomeDefinition)
    tasks = search.get("tasks")
    if isinstance(tasks, list):
        kinds = [kind.config for kind in KINDS.values()]
        search["tasks"] = [known_part(task, ("tasks", index), *kinds) for index, task in enumerate(tasks)]
    return search, tuple(ignored)


def _told_apart(tasks: list[Any]) -> list[Any]:
    """Tasks that are listed several times, with different metrics say, each with an alias."""
    counts = Counter(map(_name_alone, tasks))
    taken: Counter[str] = Counter()
    told_apart = []
    for task in tasks:
        name = _name_alone(task)
        if name is not None and counts[name] > 1:
            alias = f"{name} {str(task.get('metric', DEFAULT_METRIC)).partition(',')[0]}"
            taken[alias] += 1
            task = {"alias": alias if taken[alias] == 1 else f"{alias} {taken[alias]}", **task}
        told_apart.append(task)
    return told_apart


def _name_alone(task: Any) -> str | None:
    """What a task is known by that has no alias; None of one that has, or is none."""
    name = task.get("name") if isinstance(task, dict) and "alias" not in task else None
    return name if isinstance(name, str) else None


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
            {"metric": DEFAULT_METRIC, **shared, **_sign_as_direction(task)}
            if isinstance(task, dict) and "name" in task
            else task
            for task in _told_apart(named)
        ]
    order = "random" if settings.shuffle else "first"
    items: dict[str, Any] = {"order": order}
    items |= {"search": settings.limit} if settings.limit is not None else {"held_out": 0}
    search.setdefault("items", items)
    search.setdefault("random_init", settings.random_init)
    optimizer = search.get("optimizer", {})
    if isinstance(optimizer, dict) and "name" not in optimizer:
        search["optimizer"] = {"name": "cma", "sigma": 1 / 6, **optimizer}
    return search
