"""Values that change at layer boundaries, written as the slices of a standard recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from merge_core import METHODS


@dataclass(frozen=True)
class LayerGroups:
    """One value per group of consecutive layers, while a recipe is being put together."""

    values: tuple[Any, ...]

    def at(self, layer: int, layer_count: int) -> Any:
        """The value for `layer` of a stack of `layer_count`."""
        for value, (low, high) in zip(self.values, group_bounds(layer_count, len(self.values)), strict=True):
            if low <= layer < high:
                return value
        raise ValueError(f"layer {layer} lies outside a stack of {layer_count}")


def group_bounds(layer_count: int, groups: int) -> list[tuple[int, int]]:
    """`groups` half-open ranges that cover `layer_count` layers, of sizes that differ by one at most."""
    edges = [index * layer_count // groups for index in range(groups + 1)]
    return list(pairwise(edges))


def split_into_slices(recipe: dict[str, Any], layer_count: int) -> dict[str, Any]:
    """Rewrites a recipe that holds `LayerGroups` as one with a slice per run of equal values.

    Gradients of the original recipe keep the value they had at every layer.

    Args:
        recipe: a recipe mapping; parameter values may be `LayerGroups`.
        layer_count: layers of the models; the length of every source of a `models` recipe.
    """
    recipe = dict(recipe)
    shared = recipe.pop("parameters", None) or {}
    slices = recipe.pop("slices", None)
    if slices is None:
        models = recipe.pop("models")
        base = recipe.get("base_model")
        # `models` brings the base in by itself; slices want it named.
        if _adds_base(recipe, shared) and base not in [entry["model"] for entry in models]:
            models = [*models, {"model": base}]
        sources = [{**entry, "layer_range": [0, layer_count]} for entry in models]
        slices = [{"sources": sources}]
    # Top-level values that vary over layers move into the slices; plain ones stay where they were.
    varying = {name: value for name, value in shared.items() if _varies(value)}
    plain = {name: value for name, value in shared.items() if name not in varying}

    recipe["slices"] = []
    for whole in slices:
        own = {**varying, **(whole.get("parameters") or {})}
        first, last = whole["sources"][0]["layer_range"]
        length = last - first
        for low, high in _runs(whole, own, length):
            part = {key: value for key, value in whole.items() if key not in ("sources", "parameters")}
            part["sources"] = []
            for source in whole["sources"]:
                start = source["layer_range"][0]
                cut = {**source, "layer_range": [start + low, start + high]}
                if source.get("parameters"):
                    cut["parameters"] = _cut_all(source["parameters"], low, high, length)
                part["sources"].append(cut)
            if own:
                part["parameters"] = _cut_all(own, low, high, length)
            recipe["slices"].append(part)
    if plain:
        recipe["parameters"] = plain
    return recipe


def _adds_base(recipe: Mapping[str, Any], shared: Mapping[str, Any]) -> bool:
    method = METHODS.get(str(recipe.get("merge_method")))
    return recipe.get("base_model") is not None and method is not None and method.adds_base(shared)


def _runs(whole: Mapping[str, Any], own: Mapping[str, Any], length: int) -> list[tuple[int, int]]:
    """Cuts a slice wherever any of its layer groups ends."""
    edges = {0, length}
    settings = list(own.values())
    for source in whole["sources"]:
        settings += (source.get("parameters") or {}).values()
    for setting in settings:
        for value in _values(setting):
            if isinstance(value, LayerGroups):
                edges |= {low for low, _ in group_bounds(length, len(value.values))}
    ordered = sorted(edges)
    return list(pairwise(ordered))


def _is_filter_list(setting: Any) -> bool:
    return isinstance(setting, list) and bool(setting) and isinstance(setting[0], Mapping)


def _values(setting: Any) -> list[Any]:
    return [entry["value"] for entry in setting] if _is_filter_list(setting) else [setting]


def _varies(setting: Any) -> bool:
    return any(isinstance(value, LayerGroups | list) for value in _values(setting))


def _cut_all(parameters: Mapping[str, Any], low: int, high: int, length: int) -> dict[str, Any]:
    return {name: _cut(setting, low, high, length) for name, setting in parameters.items()}


def _cut(setting: Any, low: int, high: int, length: int) -> Any:
    """The setting of a slice of `length` layers, seen by its layers [low, high)."""
    if _is_filter_list(setting):
        return [{**entry, "value": _cut(entry["value"], low, high, length)} for entry in setting]
    if isinstance(setting, LayerGroups):
        return setting.at(low, length)
    if isinstance(setting, list):
        values = [_gradient_at(setting, layer, length) for layer in range(low, high)]
        return values[0] if len(values) == 1 else values
    return setting


def _gradient_at(gradient: list[Any], layer: int, length: int) -> Any:
    """Linear interpolation over the layers, as the recipe language defines it for numbers and for names."""
    position = (layer / (length - 1) if length > 1 else 1.0) * (len(gradient) - 1)
    index = math.floor(position)
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in gradient):
        return gradient[index]
    share = position - index
    value = (1 - share) * gradient[index] + share * gradient[min(index + 1, len(gradient) - 1)]
    return float(f"{value:.12g}")  # 0.478, not 0.4780000000000001
