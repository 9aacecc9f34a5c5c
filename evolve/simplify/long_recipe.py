"""The numbers of a search's best recipe, tensor by tensor, and the same recipe with other numbers in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.inspection.family import shared_tensors
from evolve.inspection.row_sample import sample_rows
from evolve.preflight.prepare import Prepared
from evolve.problems import Place
from evolve.simplify.outline import Outline, marks_of, own_documents, plan_of, searched_places, searched_template
from evolve.simplify.sites import Cell, Site, numbers_of
from evolve.simplify.unsaid import with_unsaid
from evolve.space.genes import put, remove
from evolve.space.genome_space import GenomeSpace
from evolve.space.space import RecipeMapping
from evolve.space.template import Template
from evolve.trials.trial import Trial
from merge_core.recipe.documents import DOCUMENTS, written_documents
from merge_core.recipe.places import named_models, value_at


@dataclass(frozen=True)
class LongRecipe:
    """A search's best recipe, as the numbers that were searched and all else.

    Attributes:
        recipe: as it was scored.
        sites: where numbers stand that were searched; what else was searched stays as it is.
        outline: what all forms of it are, but for their numbers.
    """

    recipe: RecipeMapping
    sites: tuple[Site, ...]
    outline: Outline

    @classmethod
    def of(cls, prepared: Prepared, best: Trial) -> LongRecipe:
        """Read it.

        Args:
            prepared: the search.
            best: what it found, with no `obstacle`.
        """
        template = searched_template(prepared)
        if template is None:
            raise ValueError("no number was searched")
        outline = Outline.of(prepared, template, best)
        marks = marks_of(outline.ranges)  # by which it is told which tensors have their numbers from where
        places = {mark: place for place, mark in marks.items()}
        marked, sloped = (
            plan_of(prepared, outline.with_numbers(settings))
            for settings in (marks, {place: list(ends) for place, ends in outline.ranges.items()})
        )
        values = {job.output: numbers_of(job) for job in plan_of(prepared, best.recipe).jobs}
        slopes = {job.output: numbers_of(job) for job in sloped.jobs}
        moved = _moved(prepared)
        cells: dict[Place, list[Cell]] = {place: [] for place in outline.ranges}
        for job in marked.jobs:
            for slot, mark in numbers_of(job).items():
                value = values[job.output].get(slot)
                if mark in places and value is not None:
                    low, high = outline.ranges[places[mark]]
                    depth = (slopes[job.output][slot] - low) / (high - low)
                    sources = job.inputs if slot.position is None else (job.inputs[slot.position],)
                    tensor = job.output if slot.position is None else sources[0].tensor
                    weight = sum(moved.get((source.model, source.tensor), 0.0) for source in sources)
                    cells[places[mark]].append(Cell(job.output, slot, tensor, value, weight, depth))
        sites = [Site(place, *outline.ranges[place], tuple(own)) for place, own in cells.items() if own]
        for place in cells.keys() - {site.place for site in sites}:  # of no tensor, so that any number does
            low, high = outline.ranges[place]
            put(outline.recipe, place, min(max(0.0, low), high))
        return cls(dict(best.recipe), tuple(with_unsaid(prepared, template, outline, sites)), outline)

    @property
    def cells(self) -> list[Cell]:
        """All numbers that were searched, site after site."""
        return [cell for site in self.sites for cell in site.cells]

    def with_numbers(self, settings: Mapping[Place, Any]) -> RecipeMapping:
        """The recipe with other settings in some places, everything else as the best has it.

        Args:
            settings: place of a parameter → what is written there.
        """
        return self.outline.with_numbers(settings)

    def written(self, settings: Mapping[Place, Any]) -> RecipeMapping:
        """The same recipe without what need not be said: numbers that hold anyway, and models without weight.

        Args:
            settings: of all sites.
        """
        recipe = self.with_numbers(settings)
        for site in self.sites:
            if site.default is not None and settings[site.place] == site.default:
                remove(recipe, site.place)
        for beside, sites in _by_list(self.sites).items():
            weightless = [site.model for site in sites if site.model is not None and settings[site.place] == 0.0]
            models: Any = value_at(recipe, beside)
            for place in reversed(weightless[max(0, sites[0].fewest - len(sites) + len(weightless)) :]):
                del models[place[-1]]
        return _without_unused(recipe)

    @property
    def least(self) -> int:
        """How many numbers a form has at least."""
        needed = sum(site.default is None and site.model is None for site in self.sites)
        return needed + sum(sites[0].fewest for sites in _by_list(self.sites).values())


def obstacle(prepared: Prepared, best: Trial) -> str | None:
    """Why the recipe that a search found cannot be made shorter; None where it can.

    Args:
        prepared: the search.
        best: what it found.
    """
    if best.is_reference:
        return f"its best is {best.label}, in which nothing was searched"
    template = searched_template(prepared)
    if template is None and isinstance(prepared.space, GenomeSpace):
        return "its genes choose which two models slerp goes between, and only numbers can be shared among tensors"
    if template is None:
        return "its genes choose layers (`layers:`) of models as they are, and only numbers can be shared among tensors"
    if not searched_places(template):
        return f"of the {numbers_in(template, best.recipe)} numbers of its best recipe none was searched by its range"
    return None


def numbers_in(template: Template, recipe: Mapping[str, Any]) -> int:
    """How many numbers a recipe's parameters hold, but for those of documents that make the models of earlier runs."""
    return sum(count_numbers(document) for _, document in own_documents(template, recipe))


def count_numbers(node: Any, inside: bool = False) -> int:
    """How many numbers a recipe's parameters hold."""
    if isinstance(node, Mapping):
        return sum(count_numbers(child, inside or key == "parameters") for key, child in node.items())
    if isinstance(node, list | tuple):
        return sum(count_numbers(child, inside) for child in node)
    return int(inside and isinstance(node, int | float) and not isinstance(node, bool))


def _by_list(sites: Sequence[Site]) -> dict[Place, list[Site]]:
    """The weights of models that may be left out, by the list in which they stand beside one another."""
    found: dict[Place, list[Site]] = {}
    for site in sites:
        if site.model is not None:
            found.setdefault(site.model[:-1], []).append(site)
    return found


def _without_unused(recipe: RecipeMapping) -> RecipeMapping:
    """Without the documents that make models which have been left out."""
    documents = written_documents(recipe)
    named: set[str] = set()
    kept: list[Mapping[str, Any]] = []
    for document in reversed(documents):
        if not kept or document.get("name") in named:
            kept.insert(0, document)
            named |= {str(mention.value) for mention in named_models(document)}
    return {DOCUMENTS: kept} if len(kept) > 1 else dict(kept[0])


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
