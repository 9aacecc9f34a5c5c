"""Values that change at layer boundaries, written as the slices of a standard recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from merge_core import METHODS, MergeError, Recipe
from merge_core.recipe.parts import Parameters
from merge_core.recipe.slices import cut_points, cut_slice, gradients, output_slices

LayerRuns = Sequence[tuple[int, int]]
"""Layers in a row: from one until before another, and so on."""


def layer_runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Layers in a row as few runs of consecutive ones."""
    runs: list[tuple[int, int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer:
            runs[-1] = (runs[-1][0], layer + 1)
        else:
            runs.append((layer, layer + 1))
    return runs


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


def split_into_slices(recipe: Mapping[str, Any], layer_count: int, runs: LayerRuns | None = None) -> dict[str, Any]:
    """Rewrite a recipe that holds `LayerGroups` as one with a slice per run of equal values.

    Every tensor keeps the parameter values it had. What stands before and after the layers, such as embedding and
    head, gets those of the first and the last layer where groups have values of their own.

    Args:
        recipe: a recipe mapping; parameter values may be `LayerGroups`.
        layer_count: layers of the models; the length of every source of a `models` recipe.
        runs: of a `models` recipe, the layers that the result has; they may be skipped, repeated and in any order.
            None: all, once.

    Returns:
        The recipe. One that is wrong in other ways stays so, in one piece: whoever reads it says what is wrong.
    """
    whole: dict[str, Any] = _at_layer(recipe, 0, layer_count)
    try:
        read = Recipe.from_mapping(whole)
    except MergeError:
        return whole
    # Values of the recipe's own parameters that vary over layers move into the slices; plain ones stay where they were.
    written = recipe.get("parameters") or {}
    varying = {name for name, setting in written.items() if any(_groups(setting))} | {*gradients(read.parameters)}
    method = METHODS[read.merge_method]
    slices = output_slices(read, layer_count)
    parts = []
    for number, part in enumerate(slices):
        count = part.layer_count
        own = recipe.get("models") or recipe["slices"][number]
        edges = {low for groups in _groups([written, own]) for low, _ in group_bounds(count, len(groups.values))}
        taken = runs or [(0, count)]
        for place, (first, end) in enumerate(taken):
            is_last = number == len(slices) - 1 and place == len(taken) - 1
            points = cut_points(part, _only(read.parameters, varying), edges, first, end, is_last=is_last)
            for low, high in pairwise(points):
                here = Recipe.from_mapping(_at_layer(recipe, low, count))
                shared = _only(here.parameters, varying)
                whole_slice = output_slices(here, layer_count)[number]
                ends = is_last and high == end
                parts.append(cut_slice(whole_slice, shared, low, high, method=method, is_last=ends))
    plain = _only(read.parameters, set(read.parameters) - varying)
    return dataclasses.replace(read, models=None, slices=tuple(parts), parameters=plain).to_mapping()


def join_slices(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe in which neighbouring slices that say the same of layers that follow one another are one slice.

    Args:
        recipe: a recipe mapping without genes. Where a parameter is a gradient, which every slice begins anew, they
            stay.
    """
    if "slices" not in recipe or _has_gradient(recipe.get("parameters")):
        return dict(recipe)
    joined: list[Mapping[str, Any]] = []
    for part in recipe["slices"]:
        ranges = [source["layer_range"] for source in part["sources"]]
        before = [source["layer_range"] for source in joined[-1]["sources"]] if joined else []
        same = joined and _without_ranges(joined[-1]) == _without_ranges(part) and not _has_gradient(part)
        if same and [end for _, end in before] == [first for first, _ in ranges]:
            sources = [
                {**source, "layer_range": [first, end]}
                for source, (first, _), (_, end) in zip(part["sources"], before, ranges, strict=True)
            ]
            joined[-1] = {**part, "sources": sources}
        else:
            joined.append(part)
    return {**recipe, "slices": joined}


def _without_ranges(part: Mapping[str, Any]) -> dict[str, Any]:
    sources = [{key: value for key, value in source.items() if key != "layer_range"} for source in part["sources"]]
    return {**part, "sources": sources}


def _has_gradient(node: Any) -> bool:
    if isinstance(node, Mapping):
        return any(_has_gradient(child) for key, child in node.items() if key != "layer_range")
    return isinstance(node, list) and any(isinstance(one, int | float) or _has_gradient(one) for one in node)


def _only(parameters: Parameters, names: set[str]) -> Parameters:
    return Parameters(tuple(item for item in parameters.items if item[0] in names))


def _groups(node: Any) -> Iterator[LayerGroups]:
    """Every group of layers in a part of a recipe."""
    if isinstance(node, LayerGroups):
        yield node
    elif isinstance(node, Mapping | list):
        for child in node.values() if isinstance(node, Mapping) else node:
            yield from _groups(child)


def _at_layer(node: Any, layer: int, layer_count: int) -> Any:
    """A part of a recipe with the values that `layer` of a stack of `layer_count` has."""
    if isinstance(node, LayerGroups):
        return node.at(layer, layer_count)
    if isinstance(node, Mapping):
        return {key: _at_layer(child, layer, layer_count) for key, child in node.items()}
    return [_at_layer(child, layer, layer_count) for child in node] if isinstance(node, list) else node
