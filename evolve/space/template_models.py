"""The models and merge methods that a recipe with genes can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from evolve.problems import Place
from merge_core.recipe.places import named_models


def models_of(template: Mapping[str, Any]) -> list[str]:
    """Every model that a recipe template merges, once each, as written, in the order of the file, bases last."""
    mentions = [mention for mention in named_models(template) if mention.merged]
    return list(dict.fromkeys(name for mention in mentions for name in possible_names(mention.value)))


def model_places(template: Mapping[str, Any]) -> dict[str, Place]:
    """Every model that a recipe template names, those too that only lend a tokenizer; and where it does so first."""
    places: dict[str, Place] = {}
    for mention in named_models(template):
        for name in possible_names(mention.value):
            places.setdefault(name, mention.place)
    return places


def possible_names(value: object) -> list[str]:
    """The names that a template can mean in one place: the one written there, or a gene's choices."""
    if isinstance(value, str):
        return [value]
    choices = value.get("choices") if isinstance(value, Mapping) else None
    return [str(choice) for choice in choices] if isinstance(choices, list | tuple) else []


def model_labels(models: Sequence[str]) -> dict[str, str]:
    """Short names for models: the last part of the path, or the whole reference where that is ambiguous."""
    short = {model: PurePosixPath(model).name or model for model in models}
    ambiguous = {label for label in short.values() if list(short.values()).count(label) > 1}
    return {model: (model if label in ambiguous else label) for model, label in short.items()}


def methods_of(template: Mapping[str, Any]) -> list[str]:
    """Every merge method that a recipe template stands for."""
    return possible_names(template.get("merge_method"))
