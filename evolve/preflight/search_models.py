"""The models of a search, opened as far as configs and headers, and the space that its recipe spans over them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.problems import ConfigError, Place, Problem, noted
from evolve.space.genes import RangeGene, find_genes, parse_gene
from evolve.space.genome_space import GenomeDefinition, GenomeSpace
from evolve.space.layer_genes import merges_layers, parse_layers
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.recipe_space import RecipeSpace
from evolve.space.space import Space
from evolve.space.span_layers import span_layers
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from evolve.space.unread_genes import filters_of_nothing
from merge_core import Checkpoint, MergePlan, ModelReference, documents_of, plan_recipes, resolve_model
from merge_core.checkpoint.layout import checkpoint_layout
from merge_core.execute.merged_checkpoint import MergedCheckpoint
from merge_core.recipe.documents import DOCUMENTS
from merge_core.recipe.places import value_at

RunModels = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class SearchModels:
    """Models, and the space of their merges.

    Attributes:
        template: the recipe with genes, or what a genome stands for.
        checkpoints: every model that it names.
        space: what is searched.
        plan: of the space's start, or of its largest candidate: what one takes.
    """

    template: Template
    checkpoints: Mapping[str, Checkpoint]
    space: Space
    plan: MergePlan

    @property
    def tokenizer_model(self) -> str:
        """The model whose config and tokenizer a candidate has, unless the recipe says otherwise."""
        return self.space.base_model or self.space.models[0]


def layers_of(checkpoint: Checkpoint) -> int:
    """Number of layers, from tensor names and config."""
    return checkpoint_layout(checkpoint).layer_count


def open_models(
    places: Mapping[str, Place], directory: Path, runs: RunModels | None = None, seed: int = 0
) -> dict[str, Checkpoint]:
    """Open models.

    Args:
        places: their references, and where each is named.
        directory: where local models are looked for first.
        runs: name of one that is merged of others → the documents that make it.
        seed: of randomised methods.

    Raises:
        ConfigError: with every model that cannot be found or opened, where it is named.
    """
    checkpoints: dict[str, Checkpoint] = {}
    problems: list[Problem] = []
    for model, place in places.items():
        with noted(problems, *place):
            if runs is not None and model in runs:
                documents = documents_of({DOCUMENTS: runs[model]})
                checkpoints[model] = MergedCheckpoint.of_documents(documents, directory, seed)
            else:
                checkpoints[model] = Checkpoint.open(resolve_model(ModelReference.parse(model), directory))
    if problems:
        raise ConfigError(*problems)
    return checkpoints


def span_recipe(template: Template, checkpoints: Mapping[str, Checkpoint]) -> SearchModels:
    """The space of a recipe with genes.

    Args:
        template: the recipe.
        checkpoints: its models.

    Raises:
        ConfigError, MergeError: genes that make no sense for these models, or models that cannot be merged so.
    """
    tensors = {name for checkpoint in checkpoints.values() for name in checkpoint.tensors}
    if template.layers is not None and not merges_layers(template):
        depths = {model: layers_of(checkpoints[model]) for model in template.models}
        paths = span_layers(template, depths, parse_layers(template.layers), tensors)
        return _planned(template, checkpoints, paths, paths.recipe(paths.largest))
    if problems := [*filters_of_nothing(template, tensors), *_beyond_the_last_layer(template, checkpoints)]:
        raise ConfigError(*problems)
    base = template.base_model
    model = base if isinstance(base, str) else next(iter(checkpoints))
    layout = checkpoint_layout(checkpoints[model])
    kinds = TensorKinds.of(layout)
    if template.layers is not None:
        depths = {model: layers_of(checkpoints[model]) for model in template.models}
        merged = MergedPathSpace.span(template, depths, parse_layers(template.layers), kinds)
        return _planned(template, checkpoints, merged, merged.largest)
    return _planned(template, checkpoints, RecipeSpace.from_template(template, layout.layer_count, kinds))


def _beyond_the_last_layer(template: Template, checkpoints: Mapping[str, Checkpoint]) -> Iterator[Problem]:
    """A problem for every gene of a layer range that reaches layers which its model does not have."""
    for place, node in find_genes(template.document):
        gene = parse_gene(node, place)
        if "layer_range" in place and isinstance(gene, RangeGene):
            model = value_at(template.document, (*place[: place.index("layer_range")], "model"))
            count = layers_of(checkpoints[model]) if isinstance(model, str) else gene.high
            if gene.high > count or gene.low < 0:
                message = (
                    f"layers of {model} are counted from 0 to {count:g}, got low {gene.low:g} and high {gene.high:g}"
                )
                yield Problem(place, message)


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
    template = Template.read(genome.template())
    checkpoints = open_models(template.places, directory)
    space = GenomeSpace(genome, layers_of(checkpoints[genome.base_model or genome.models[0]]))
    if random_seed is not None:
        generator = random.Random(random_seed)
        start = tuple(generator.random() for _ in space.coordinates)
        space = GenomeSpace(genome, space.layer_count, start)
    return _planned(template, checkpoints, space)


def _planned(
    template: Template,
    checkpoints: Mapping[str, Checkpoint],
    space: Space,
    largest: Mapping[str, Any] | None = None,
) -> SearchModels:
    """The start is planned, which finds out what no candidate can do; or a larger candidate, where sizes differ."""
    recipe = largest or space.decode(space.start(None))
    plan = plan_recipes(documents_of(recipe, where=""), checkpoints)
    return SearchModels(template, checkpoints, space, plan)
