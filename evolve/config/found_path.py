"""Weights on top of a path: a recipe whose layers follow those that an earlier search found."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.config.looked_in import beside_or_here
from evolve.problems import ConfigError, Problem
from evolve.space.layer_slices import LayerRuns
from merge_core import MergeError, load_recipes

RECIPE = "best_recipe.yml"  # in the directory of a run


def is_found_path(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe's layers are those that another recipe has: `layers: {from: RUN}`."""
    layers = recipe.get("layers")
    return isinstance(layers, Mapping) and "from" in layers


def without_layers(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe on no path, whose other mistakes can be told all the same."""
    return {key: value for key, value in recipe.items() if key != "layers"}


def follow_found_path(recipe: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The recipe with a slice for each one of the path, in which all of its models are merged.

    What stands beside a model, genes included, is put into every slice, so that each has genes of its own.

    Args:
        recipe: one of `models`, whose `layers` name a run or a recipe.
        directory: where that is looked for first.

    Raises:
        ConfigError: there is no such recipe, it is not a path through layers, or the recipe has no models.
    """
    layers = recipe["layers"]
    models = recipe.get("models")
    if set(layers) != {"from"} or not isinstance(layers["from"], str):
        raise ConfigError(Problem(("layers",), "expected {from: RUN}, a run's directory or a recipe, and nothing else"))
    if not isinstance(models, list) or not all(isinstance(entry, Mapping) for entry in models):
        raise ConfigError(Problem(("models",), "a list of models is needed beside layers: {from: …}"))
    base = recipe.get("base_model")
    if base is not None and base not in [entry.get("model") for entry in models]:
        models = [*models, {"model": base}]
    kept = {key: value for key, value in without_layers(recipe).items() if key != "models"}
    slices = [
        {"sources": [{**copy.deepcopy(dict(entry)), "layer_range": list(run)} for entry in models]}
        for run in _path(layers["from"], directory)
    ]
    return {**kept, "slices": slices}


def _path(named: str, directory: Path) -> LayerRuns:
    place = ("layers", "from")
    found = beside_or_here(named, directory, os.path.exists)
    if found is None:
        raise ConfigError(Problem(place, f"{named} is neither beside the file nor here"))
    file = found / RECIPE if found.is_dir() else found
    try:
        documents = load_recipes(file)
    except MergeError as error:
        raise ConfigError(Problem(place, str(error))) from error
    slices = documents[0].slices
    if slices is None and documents[0].merge_method == "passthrough":
        raise ConfigError(Problem(place, f"the best of {named} is a model as it is: leave layers out"))
    depths_differ = any(len({source.layer_range for source in part.sources}) > 1 for part in slices or ())
    if len(documents) > 1 or slices is None or depths_differ:
        raise ConfigError(Problem(place, f"{file} is no path through layers, which is one document of slices"))
    scaled = documents[0].merge_method == "passthrough"
    if scaled and any(source.parameters.items for part in slices for source in part.sources):
        raise ConfigError(
            Problem(place, f"{file} scales layers, which a merge of weights cannot. Search without scale")
        )
    return [part.sources[0].layer_range for part in slices]
