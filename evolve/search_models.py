"""The models of a search, opened as far as configs and headers, and the space that its recipe spans over them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.mergekit_genome import GenomeDefinition, GenomeSpace
from evolve.problems import ConfigError, Problem, problems_within
from evolve.search_space import RecipeSpace, Space
from evolve.template_models import models_of, tokenizer_models
from merge_core import Checkpoint, MergeError, ModelReference, Recipe, build_plan, resolve_model
from merge_core.architecture import checkpoint_layout


@dataclass(frozen=True)
class SearchModels:
    """Models, and the space of their merges.

    Attributes:
        template: the recipe with genes, or what a genome stands for.
        checkpoints: every model that it names.
        space: what is searched.
    """

    template: Mapping[str, Any]
    checkpoints: Mapping[str, Checkpoint]
    space: Space

    @property
    def tokenizer_model(self) -> str:
        """The model whose config and tokenizer a candidate has, unless the recipe says otherwise."""
        return self.space.base_model or self.space.models[0]


def layers_of(checkpoint: Checkpoint) -> int:
    """Number of layers, from tensor names and config."""
    return checkpoint_layout(checkpoint).layer_count


def open_models(template: Mapping[str, Any], directory: Path) -> dict[str, Checkpoint]:
    """Open every model that a recipe names.

    Args:
        template: the recipe, with genes in it.
        directory: where local models are looked for first.

    Raises:
        ConfigError: with every model that cannot be found or opened, where it is named first.
    """
    checkpoints = {}
    problems: list[Problem] = []
    for model in [*models_of(template), *tokenizer_models(template)]:
        try:
            checkpoints[model] = Checkpoint.open(resolve_model(ModelReference.parse(model), directory))
        except MergeError as error:
            problems += problems_within(error, *_place_of(model, template))
    if problems:
        raise ConfigError(*problems)
    return checkpoints


def _place_of(model: str, node: Any) -> tuple[str | int, ...]:
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if child == model:
            return (key,)
        if below := _place_of(model, child):
            return (key, *below)
    return ()


def span_recipe(template: Mapping[str, Any], checkpoints: Mapping[str, Checkpoint]) -> SearchModels:
    """The space of a recipe with genes.

    Args:
        template: the recipe.
        checkpoints: its models.

    Raises:
        ConfigError, MergeError: genes that make no sense for these models, or models that cannot be merged so.
    """
    base = template.get("base_model")
    model = base if isinstance(base, str) else next(iter(checkpoints))
    return _planned(template, checkpoints, RecipeSpace.from_template(template, layers_of(checkpoints[model])))


def span_genome(genome: GenomeDefinition, directory: Path, random_seed: int | None) -> SearchModels:
    """The space of mergekit-evolve's genome.

    Args:
        genome: what the file says.
        directory: where local models are looked for first.
        random_seed: of a start that is uniform in [0, 1] in the genes' own units, mergekit-evolve's `random_init`;
            None: the start is the genome's.

    Raises:
        ConfigError, MergeError: a model that cannot be found, layers that do not fit the groups, or models that
            cannot be merged so.
    """
    template = genome.template()
    checkpoints = open_models(template, directory)
    space = GenomeSpace(genome, layers_of(checkpoints[genome.base_model or genome.models[0]]))
    if random_seed is not None:
        generator = random.Random(random_seed)
        start = tuple(generator.random() for _ in space.coordinates)
        space = GenomeSpace(genome, space.layer_count, start)
    return _planned(template, checkpoints, space)


def _planned(template: Mapping[str, Any], checkpoints: Mapping[str, Checkpoint], space: Space) -> SearchModels:
    """The start is planned, so that what no candidate can do is found out."""
    build_plan(Recipe.from_mapping(space.decode(space.start(None)), where=""), checkpoints, 0)
    return SearchModels(template, checkpoints, space)
