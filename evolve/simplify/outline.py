"""What a search's best recipe says beside its numbers: a recipe with one place for each parameter that was searched.

A search that gives layers values of their own writes a slice for each of them. Without the values these are one again,
and a path through the layers of a merge is that merge, in a document, and a last one that takes its layers in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evolve.preflight.prepare import Prepared
from evolve.preflight.search_models import layers_of
from evolve.problems import Place
from evolve.space.genes import RangeGene, find_genes, parse_gene, put, unshared_copy
from evolve.space.genome_space import GenomeSpace
from evolve.space.layer_slices import join_slices, layer_runs
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.recipe_space import RecipeSpace
from evolve.space.space import RecipeMapping
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from evolve.trials.trial import Trial
from merge_core import METHODS, MergePlan, documents_of, plan_recipes
from merge_core.checkpoint.layout import checkpoint_layout
from merge_core.recipe.documents import DOCUMENTS, written_documents
from merge_core.recipe.places import parameter_settings, value_at

MERGE = "merge"  # the document that a path goes through
_APART = 0.6180339887  # of a step: marks are no numbers that a person would write

Range = tuple[float, float]


@dataclass(frozen=True)
class Outline:
    """A standard recipe, and where in it a number stands that was searched.

    Attributes:
        recipe: with any number in those places.
        ranges: place of a parameter → its least and greatest value.
    """

    recipe: RecipeMapping
    ranges: Mapping[Place, Range]

    @classmethod
    def of(cls, prepared: Prepared, template: Template, best: Trial) -> Outline:
        """Read it.

        Args:
            prepared: the search.
            template: its numbers, see `searched_template`.
            best: what it found.
        """
        searched = searched_places(template)
        marks = marks_of(searched)  # by which a place is found again in the recipe that comes of the template
        ranges = {mark: searched[place] for place, mark in marks.items()}
        recipe = _joined(prepared, template, _with_genes_of(prepared, template, best, marks), ranges)
        return cls(recipe, {place: ranges[mark] for place, mark in _marked(recipe) if mark in ranges})

    def with_numbers(self, settings: Mapping[Place, Any]) -> RecipeMapping:
        """The recipe with these settings in their places.

        Args:
            settings: place of a parameter → what is written there.
        """
        recipe: RecipeMapping = unshared_copy(self.recipe)
        for place, setting in settings.items():
            put(recipe, place, setting)
        return recipe


def plan_of(prepared: Prepared, recipe: Mapping[str, Any]) -> MergePlan:
    """What a recipe makes of every tensor; reads no weights."""
    return plan_recipes(documents_of(recipe), prepared.checkpoints, prepared.config.seed)


def marks_of(ranges: Mapping[Place, Range]) -> dict[Place, float]:
    """A number of its own for every place, in its range."""
    return {
        place: low + (high - low) * (number + _APART) / (len(ranges) + 1)
        for number, (place, (low, high)) in enumerate(ranges.items())
    }


def searched_template(prepared: Prepared) -> Template | None:
    """A recipe with the ranges of what is searched, of a path through a merge the merge's; None where it has none."""
    space = prepared.space
    if isinstance(space, MergedPathSpace):
        return space.merge.template
    if isinstance(space, GenomeSpace):
        return None if space.ranges is None else Template.read(space.ranges)
    return prepared.template if isinstance(space, RecipeSpace) else None


def searched_places(template: Template) -> dict[Place, Range]:
    """Where a parameter is searched, in the recipe with ranges → its least and greatest value."""
    found: dict[Place, Range] = {}
    for path, node in find_genes(template.document):
        gene, setting = parse_gene(node, path), template.setting_at(path)
        if isinstance(gene, RangeGene) and gene.step is None and setting is not None:
            low, high = found.get(setting.place, (gene.low, gene.high))
            found[setting.place] = min(low, gene.low), max(high, gene.high)
    return found


def own_documents(template: Template, recipe: Mapping[str, Any]) -> list[tuple[Place, Mapping[str, Any]]]:
    """The documents of a recipe but for those that make the models of earlier runs, each with its place."""
    made = {document.get("name") for own in template.run_models.values() for document in own}
    if DOCUMENTS not in recipe:
        return [((), recipe)]
    return [
        ((DOCUMENTS, number), document)
        for number, document in enumerate(recipe[DOCUMENTS])
        if document.get("name") is None or document["name"] not in made
    ]


def _with_genes_of(prepared: Prepared, template: Template, best: Trial, settings: Mapping[Place, Any]) -> RecipeMapping:
    """The recipe with other settings in some places of the template, and all else as the best has it."""
    document = unshared_copy(template.document)
    for place, setting in settings.items():
        put(document, place, setting)
    checkpoint = prepared.checkpoints[prepared.tokenizer_model]
    kinds = TensorKinds.of(checkpoint_layout(checkpoint))
    named = replace(Template.read(document), run_models=template.run_models)
    space = RecipeSpace.from_template(named, layers_of(checkpoint), kinds)
    # A gene that the best does not have is one of a model that it leaves out.
    values = [best.genes.get(axis.name, axis.gene.value(0.5)) for axis in space.coordinates]
    if isinstance(prepared.space, MergedPathSpace) and best.vector is not None:
        return replace(prepared.space, merge=space).recipe(prepared.space.path_at(best.vector), values)
    return space.recipe_of(values)


def _marked(recipe: Mapping[str, Any]) -> list[tuple[Place, Any]]:
    """Every setting of a recipe, and its place there."""
    outer = [(DOCUMENTS, number) for number in range(len(recipe[DOCUMENTS]))] if DOCUMENTS in recipe else [()]
    return [
        ((*place, *setting.place), setting.value)
        for place, document in zip(outer, written_documents(recipe), strict=True)
        for setting in parameter_settings(document)
        if isinstance(setting.value, float)
    ]


def _joined(
    prepared: Prepared, template: Template, recipe: RecipeMapping, ranges: Mapping[float, Range]
) -> RecipeMapping:
    """The same with as few slices as say it."""
    own = own_documents(template, recipe)
    found: RecipeMapping = unshared_copy(recipe)
    for place, document in own:
        joined = join_slices(document)
        if place:
            put(found, place, joined)
        else:
            found = joined
    if len(own) > 1:
        return found
    place, document = own[0]
    stacked = _merge_and_path(prepared, value_at(found, place), ranges)
    if stacked is None:
        return found
    return {DOCUMENTS: [*found.get(DOCUMENTS, [None])[:-1], *stacked]}


def _merge_and_path(
    prepared: Prepared, document: Any, ranges: Mapping[float, Range]
) -> tuple[RecipeMapping, RecipeMapping] | None:
    """A merge of whole models, and the path through it that the slices of a document are; None where they are none."""
    slices = document.get("slices", ())
    parts = [[tuple(source["layer_range"]) for source in part["sources"]] for part in slices]
    if len(slices) < 2 or any(len(set(own)) > 1 for own in parts):
        return None
    path = [own[0] for own in parts]
    in_order = len(layer_runs(layer for low, high in path for layer in range(low, high))) == 1
    randomised = METHODS[document["merge_method"]].randomised  # what it draws depends on where a layer stands
    depths = {layers_of(prepared.checkpoints[source["model"]]) for source in slices[0]["sources"]}
    if in_order or randomised or len(depths) > 1:
        return None
    said = [_without_numbers(part, ranges) for part in slices]
    if set(slices[0]) != {"sources"} or any(own != said[0] for own in said):
        return None
    name = MERGE
    while name in prepared.checkpoints:
        name += "_"
    models = [{key: value for key, value in one.items() if key != "layer_range"} for one in slices[0]["sources"]]
    whole = {key: models if key == "slices" else value for key, value in document.items()}
    merge = {"name": name, **{"models" if key == "slices" else key: value for key, value in whole.items()}}
    stack = [{"sources": [{"model": name, "layer_range": list(layers)}]} for layers in path]
    dtypes = {key: document[key] for key in ("dtype", "out_dtype") if key in document}
    return merge, {"merge_method": "passthrough", "slices": stack, **dtypes}


def _without_numbers(node: Any, ranges: Mapping[float, Range]) -> Any:
    """A part of a recipe with ranges in the place of marks, and without what says which layers it is of."""
    if isinstance(node, Mapping):
        return {key: _without_numbers(child, ranges) for key, child in node.items() if key != "layer_range"}
    if isinstance(node, list):
        return [_without_numbers(child, ranges) for child in node]
    return ranges.get(node, node) if isinstance(node, float) else node
