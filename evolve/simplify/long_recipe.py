"""The numbers of a search's best recipe, tensor by tensor, and the same recipe with other numbers in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.inspection.family import shared_tensors
from evolve.inspection.row_sample import sample_rows
from evolve.preflight.prepare import Prepared
from evolve.preflight.search_models import layers_of
from evolve.problems import Place
from evolve.space.genes import RangeGene, find_genes, parse_gene, put, unshared_copy
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.layer_slices import join_slices
from evolve.space.merged_path_space import MergedPathSpace
from evolve.space.recipe_space import RecipeSpace
from evolve.space.space import RecipeMapping
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from evolve.trials.trial import Trial
from merge_core import MergePlan, ParameterSlot, documents_of, plan_recipes
from merge_core.checkpoint.layout import checkpoint_layout
from merge_core.recipe.documents import DOCUMENTS


@dataclass(frozen=True)
class Cell:
    """One number of the long recipe: a parameter of one model at one tensor of the result.

    Attributes:
        output: the tensor.
        slot: the parameter there.
        tensor: its name in the model, in which filters are looked for.
        value: the number.
        moved: how much it moves the model: squared length of the task vector there; without a base, of the tensor.
    """

    output: str
    slot: ParameterSlot
    tensor: str
    value: float
    moved: float = 1.0


@dataclass(frozen=True)
class Site:
    """A place of the recipe where one model's parameter is set, with the numbers that it has there.

    Attributes:
        place: in the recipe.
        low, high: its range.
        cells: its numbers.
    """

    place: Place
    low: float
    high: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class LongRecipe:
    """A search's best recipe, as the numbers that were searched and all else.

    Attributes:
        recipe: as it was scored.
        sites: where numbers of models stand that were searched; what else was searched stays as it is.
    """

    recipe: RecipeMapping
    sites: tuple[Site, ...]
    _prepared: Prepared
    _genes: Mapping[str, Any]

    @classmethod
    def of(cls, prepared: Prepared, best: Trial) -> LongRecipe:
        """Read it.

        Args:
            prepared: the search.
            best: what it found, with no `obstacle`.
        """
        empty = cls(dict(best.recipe), (), prepared, best.genes)
        ranges = searched_places(prepared)
        # Every place gets a number of its own, by which it is told which tensors have their numbers from there.
        marks = {
            place: low + (high - low) * (number + 1) / (len(ranges) + 1)
            for number, (place, (low, high)) in enumerate(ranges.items())
        }
        marked, plan = (_plan(prepared, recipe) for recipe in (empty.with_numbers(marks), best.recipe))
        places = {mark: place for place, mark in marks.items()}
        values = {job.output: [dict(source.parameters) for source in job.inputs] for job in plan.jobs}
        moved = _moved(prepared)
        cells: dict[Place, list[Cell]] = {place: [] for place in ranges}
        for job in marked.jobs:
            for position, source in enumerate(job.inputs):
                for name, mark in source.parameters:
                    value = values[job.output][position].get(name)
                    if mark in places and isinstance(value, int | float):
                        weight = moved.get((source.model, source.tensor), 0.0)
                        slot = ParameterSlot(name, position)
                        cells[places[mark]].append(Cell(job.output, slot, source.tensor, float(value), weight))
        sites = [Site(place, *ranges[place], tuple(own)) for place, own in cells.items() if own]
        return cls(dict(best.recipe), tuple(sites), prepared, best.genes)

    @property
    def cells(self) -> list[Cell]:
        """All numbers that were searched, site after site."""
        return [cell for site in self.sites for cell in site.cells]

    def with_numbers(self, settings: Mapping[Place, Any]) -> RecipeMapping:
        """The recipe with other settings in some places, everything else as the best has it.

        Args:
            settings: place of a parameter → what is written there.
        """
        document = unshared_copy(self._prepared.template.document)
        for place, setting in settings.items():
            put(document, place, setting)
        checkpoint = self._prepared.checkpoints[self._prepared.tokenizer_model]
        kinds = TensorKinds.of(checkpoint_layout(checkpoint))
        space = RecipeSpace.from_template(Template.read(document), layers_of(checkpoint), kinds)
        # A gene that the best does not have is one of a model that it leaves out.
        return join_slices(
            space.recipe_of([self._genes.get(axis.name, axis.gene.value(0.5)) for axis in space.coordinates])
        )


def obstacle(prepared: Prepared, best: Trial) -> str | None:
    """Why the recipe that a search found cannot be made shorter; None where it can.

    Args:
        prepared: the search.
        best: what it found.
    """
    if best.is_reference:
        return f"its best is {best.label}, in which nothing was searched"
    if isinstance(prepared.space, LayerPathSpace | MergedPathSpace):
        return "its genes choose layers (`layers:`), and only numbers of models can be shared among tensors"
    if not isinstance(prepared.space, RecipeSpace):
        return "its genes are a `genome:`; searches of a recipe with ranges in it can be shortened"
    if DOCUMENTS in best.recipe:
        return "its best recipe has several documents: for a run as a model, or for methods that differ by layer"
    numbers, least = count_numbers(best.recipe), len(searched_places(prepared))
    if not least:
        return f"of the {numbers} numbers of its best recipe none is a parameter of a model that was searched"
    if numbers <= least:
        return f"its best recipe has {numbers} numbers, one for each parameter that was searched"
    return None


def count_numbers(node: Any, inside: bool = False) -> int:
    """How many numbers a recipe's parameters hold."""
    if isinstance(node, Mapping):
        return sum(count_numbers(child, inside or key == "parameters") for key, child in node.items())
    if isinstance(node, list | tuple):
        return sum(count_numbers(child, inside) for child in node)
    return int(inside and isinstance(node, int | float) and not isinstance(node, bool))


def searched_places(prepared: Prepared) -> dict[Place, tuple[float, float]]:
    """Where a parameter of a model is searched, in the recipe → its least and greatest value."""
    found: dict[Place, tuple[float, float]] = {}
    for path, node in find_genes(prepared.template.document):
        gene, setting = parse_gene(node, path), prepared.template.setting_at(path)
        if not isinstance(gene, RangeGene) or gene.step is not None or setting is None:
            continue
        if isinstance(setting.model, str):
            low, high = found.get(setting.place, (gene.low, gene.high))
            found[setting.place] = min(low, gene.low), max(high, gene.high)
    return found


def _plan(prepared: Prepared, recipe: Mapping[str, Any]) -> MergePlan:
    return plan_recipes(documents_of(recipe), prepared.checkpoints, prepared.config.seed)


def _moved(prepared: Prepared) -> dict[tuple[str, str], float]:
    """Model and tensor → squared length of its difference from the base; without one, of itself."""
    checkpoints, base = prepared.checkpoints, prepared.space.base_model
    labels: Sequence[str] = list(checkpoints)
    found: dict[tuple[str, str], float] = {}
    for tensor in shared_tensors([checkpoints[label] for label in labels]):
        sample = sample_rows([checkpoints[label] for label in labels], tensor)
        values = sample.values.flatten(1)
        apart = values if base is None else values - values[labels.index(base)]
        squares = (apart.double() ** 2).sum(1) * sample.scale
        for label, name, square in zip(labels, tensor.names, squares, strict=True):
            found[label, name] = float(square)
    return found
