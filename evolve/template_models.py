"""The models and merge methods that a recipe with genes can name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from merge_core.recipe_places import named_models


def models_of(template: Mapping[str, Any]) -> list[str]:
    """Every model that a recipe template merges, once each, as written, in the order of the file, bases last."""
    mentions = [mention for mention in named_models(template) if mention.merged]
    return list(dict.fromkeys(name for mention in mentions for name in possible_names(mention.value)))


def tokenizer_models(template: Mapping[str, Any]) -> list[str]:
    """Models that a recipe takes only a tokenizer or single tokens from; they are not merged."""
    mentions = [mention for mention in named_models(template) if not mention.merged]
    named = dict.fromkeys(name for mention in mentions for name in possible_names(mention.value))
    return [name for name in named if name not in models_of(template)]


def possible_names(value: object) -> list[str]:
    """The names that a template can mean in one place: the one written there, or a gene's choices."""
    if isinstance(value, str):
        return [value]
    choices = value.get("choices") if isinstance(value, Mapping) else None
    return [str(choice) for choice in choices] if isinstance(choices, list | tuple) else []


def model_labels(template: Mapping[str, Any]) -> dict[str, str]:
    """Short names for models: the last part of the path, or the whole reference where that is ambiguous."""
    models = models_of(template)
    short = {model: PurePosixPath(model).name or model for model in models}
    ambiguous = {label for label in short.values() if list(short.values()).count(label) > 1}
    return {model: (model if label in ambiguous else label) for model, label in short.items()}


def methods_of(template: Mapping[str, Any]) -> list[str]:
    """Every merge method that a recipe template stands for."""
    return possible_names(template.get("merge_method"))
