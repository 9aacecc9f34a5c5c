"""Recipes that are less of a merge than they look: a model without weight, a single model in disguise."""

from __future__ import annotations

import math
from collections.abc import Iterator

from evolve.report.formatting import single_line
from merge_core import METHODS, Method, Recipe
from merge_core.plan.slice_context import SliceContext
from merge_core.plan.towers import towers
from merge_core.recipe.slices import output_slices

_NEGLIGIBLE_WEIGHT = 0.01


def degenerate_notes(recipe: Recipe) -> list[str]:
    """One sentence for each way in which the recipe is not a merge of all its models.

    Reads the recipe only, so it says what the numbers imply whatever the scores are.
    """
    method = METHODS[recipe.merge_method]
    slices = [SliceContext(tower, part) for tower in towers(recipe) for part in output_slices(tower, layer_count=0)]
    models = [str(model) for model in recipe.merged_models()]
    base = None if recipe.base_model is None else str(recipe.base_model)
    if len(models) == 1 and recipe.models is not None:
        return [f"The recipe names a single model: the best is {single_line(models[0])} itself."]
    if method.interpolates and base is not None and len(models) == 2:
        positions = {value for part in slices for value in part.possible_settings("t")}
        for end, name in ((0.0, models[0]), (1.0, models[1])):  # the base model comes first
            if positions == {end}:
                return [f"t is {end:g} everywhere: the best is {single_line(name)} itself."]
    return list(_notes_on_weights(method, base, _largest_weights(slices)))


def _largest_weights(slices: list[SliceContext]) -> dict[str, float]:
    """The largest magnitude that any tensor's weight can have, of every model that takes a weight."""
    largest: dict[str, float] = {}
    for part in slices:
        for model, values in part.possible_inputs("weight").items():
            found = max((abs(value) for value in values if value is not None), default=math.inf)
            largest[model] = max(largest.get(model, 0.0), found)
    return largest


def _notes_on_weights(method: Method, base: str | None, largest: dict[str, float]) -> Iterator[str]:
    for name, weight in largest.items():
        if weight == 0:
            yield f"{single_line(name)} has weight 0 everywhere: it has no part in the best model."
        elif weight < _NEGLIGIBLE_WEIGHT:
            yield f"{single_line(name)} has hardly any part: its largest weight is {weight:.2g}."
    left = [name for name, weight in largest.items() if weight > 0]
    if len(left) == len(largest):
        return
    if base is None or not method.uses_task_vectors:
        if len(left) == 1 and method.adds_all:
            yield f"Only {single_line(left[0])} is left: the best is that model."
    elif not left:
        yield f"No model has any weight: the best is the base model {single_line(base)} itself."
    elif len(left) == 1:
        yield f"Only {single_line(left[0])} is left beside the base model {single_line(base)}."
