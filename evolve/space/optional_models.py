"""Models that a candidate may do without: `optional: true` beside a model is a gene that switches it off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evolve.problems import Place, Problem
from evolve.space.genes import unshared_copy
from evolve.space.template import Template
from merge_core import METHODS
from merge_core.recipe.places import named_models, value_at

OPTIONAL = "optional"


def optional_models(document: Mapping[str, Any]) -> dict[str, None]:
    """The models that are optional wherever they stand, in the order of the file."""
    return {str(entry["model"]): None for _, entry in _entries(document) if entry.get(OPTIONAL) is True}


def without_marks(document: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with every model in it, as a standard recipe has them."""
    return select_models(unshared_copy(document), ())


def select_models(recipe: dict[str, Any], off: Sequence[str]) -> dict[str, Any]:
    """Take models out of a recipe, and the marks that they are optional.

    Where too few would be left for its method, the first of them stay.

    Args:
        recipe: is changed.
        off: the models to leave out.
    """
    method = METHODS.get(str(recipe.get("merge_method")))
    fewest = 1 if method is None else method.minimum_models
    for part, key in dict.fromkeys((place[:-2], place[-2]) for place, _ in _entries(recipe)):
        entries = value_at(recipe, (*part, key))
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            continue  # which the reader of recipes says
        base = value_at(recipe, (*part, "base_model")) or recipe.get("base_model")
        stays = [entry.get("model") not in off for entry in entries]
        missing = fewest - sum(on and entry.get("model") != base for on, entry in zip(stays, entries, strict=True))
        for number, on in enumerate(stays):
            if not on and missing > 0:
                stays[number] = True
                missing -= 1
        entries[:] = [entry for entry, on in zip(entries, stays, strict=True) if on]
        for entry in entries:
            entry.pop(OPTIONAL, None)
    return recipe


def misplaced_marks(template: Template) -> Iterator[Problem]:
    """What is wrong with the marks of a recipe."""
    document = template.document
    marked: dict[str, set[bool]] = {}
    for place, entry in _entries(document):
        mark = entry.get(OPTIONAL, False)
        if not isinstance(mark, bool):
            yield Problem((*place, OPTIONAL), f"expected true or false, got {mark!r}")
            continue
        model = entry["model"]
        if mark and not isinstance(model, str):
            yield Problem((*place, OPTIONAL), "which model stands here is a gene already. Remove one of the two")
            continue
        marked.setdefault(str(model), set()).add(mark)
        if mark and model == (value_at(document, (*place[:-2], "base_model")) or template.base_model):
            yield Problem((*place, OPTIONAL), "a base model cannot be left out. Remove it")
        for name in template.methods if mark else ():
            method = METHODS.get(name)
            if method is not None and method.maximum_models == method.minimum_models:
                yield Problem((*place, OPTIONAL), f"{name} needs each of its models. Remove it, or use another method")
    fewest = min((METHODS[name].minimum_models for name in template.methods if name in METHODS), default=1)
    others = [model for model in template.models if model != template.base_model]
    if any(True in marks for marks in marked.values()) and len(others) <= fewest:
        one = "one model" if fewest == 1 else f"{fewest} models"
        yield Problem(
            (), f"at least {one} must stay, and there is no other, so that optional changes nothing. Remove it"
        )
    for model, marks in marked.items():
        if len(marks) > 1:
            yield Problem((), f"{model} is optional in some places and not in others. Write it in all of them")


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every entry of a model that is merged, and its place."""
    for mention in named_models(document):
        if mention.merged and mention.place[-1] == "model":
            entry = value_at(document, mention.place[:-1])
            if isinstance(entry, dict):
                yield mention.place[:-1], entry
