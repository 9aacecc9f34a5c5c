"""Recipes that are less of a merge than they look: a model without weight, a single model in disguise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evolve.wording import single_line
from merge_core.model_reference import ModelReference

_WITHOUT_TASK_VECTORS = frozenset({"linear", "slerp", "nuslerp", "multislerp", "karcher", "passthrough"})
_NEGLIGIBLE_WEIGHT = 0.01


def degenerate_notes(recipe: Mapping[str, Any]) -> list[str]:
    """One sentence for each way in which the recipe is not a merge of all its models.

    Reads the recipe only, so it says what the numbers imply whatever the scores are.
    """
    sources = list(_sources(recipe))
    base = _reference(recipe["base_model"]) if recipe.get("base_model") else None
    method = str(recipe.get("merge_method", ""))
    models = list(dict.fromkeys([*(name for name, _ in sources), *([base] if base else [])]))
    if len(models) == 1 and not isinstance(recipe.get("slices"), list):
        return [f"The recipe names a single model: the best is {single_line(models[0])} itself."]
    if method in {"slerp", "nuslerp"} and base and len(models) == 2:
        positions = [number for _, layers in sources for number in _numbers_of("t", layers)]
        other = next(name for name in models if name != base)
        for end, name in ((0.0, base), (1.0, other)):
            if positions and all(position == end for position in positions):
                return [f"t is {end:g} everywhere: the best is {single_line(name)} itself."]

    largest: dict[str, float] = {}
    for name, layers in sources:
        weights = _numbers_of("weight", layers)
        largest[name] = max(largest.get(name, 0.0), max(map(abs, weights), default=math.inf))
    notes = []
    moved = {name: weight for name, weight in largest.items() if name != base or method in _WITHOUT_TASK_VECTORS}
    for name, weight in moved.items():
        if weight == 0:
            notes.append(f"{single_line(name)} has weight 0 everywhere: it has no part in the best model.")
        elif weight < _NEGLIGIBLE_WEIGHT:
            notes.append(f"{single_line(name)} has hardly any part: its largest weight is {weight:.2g}.")
    left = [name for name, weight in moved.items() if weight > 0]
    if len(left) < len(moved):
        if not left and base:
            notes.append(f"No model has any weight: the best is the base model {single_line(base)} itself.")
        elif len(left) == 1 and method == "linear":
            notes.append(f"Only {single_line(left[0])} is left: the best is that model.")
        elif len(left) == 1 and base and method not in _WITHOUT_TASK_VECTORS:
            notes.append(f"Only {single_line(left[0])} is left beside the base model {single_line(base)}.")
    return notes


def _reference(value: object) -> str:
    """A model as text; recipes may also write it as a map."""
    return str(ModelReference.parse(value))


def _sources(recipe: Mapping[str, Any]) -> Iterable[tuple[str, list[Mapping[str, Any]]]]:
    """Every mention of a model, with its parameters from the most to the least specific."""
    top = recipe.get("parameters") or {}
    for entry in recipe.get("models") or []:
        yield _reference(entry["model"]), [entry.get("parameters") or {}, top]
    for part in recipe.get("slices") or []:
        for entry in part.get("sources") or []:
            layers = [entry.get("parameters") or {}, part.get("parameters") or {}, top]
            yield _reference(entry["model"]), layers


def _numbers_of(parameter: str, layers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Every number in the most specific value of a parameter: a scalar, a gradient, or filtered values."""
    value = next((layer[parameter] for layer in layers if parameter in layer), None)
    found: list[float] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            pending.append(item.get("value"))
        elif isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, int | float):
            found.append(float(item))
    return found
