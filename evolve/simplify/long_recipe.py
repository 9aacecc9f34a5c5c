"""The numbers of a search's best recipe, tensor by tensor, and the same recipe with other numbers in their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evolve.inspection.family import shared_tensors
from evolve.inspection.row_sample import sample_rows
from evolve.preflight.prepare import Prepared
from evolve.problems import Place
from evolve.simplify.outline import Outline, marks_of, own_documents, searched_places, searched_template
from evolve.space.genes import put, remove, unshared_copy
from evolve.space.genome_space import GenomeSpace
from evolve.space.space import RecipeMapping
from evolve.space.template import Template
from evolve.trials.trial import Trial
from merge_core import METHODS, MergePlan, Method, ParameterSlot, documents_of, plan_recipes
from merge_core.methods.method import Required
from merge_core.plan.tensor_job import TensorJob
from merge_core.recipe.documents import DOCUMENTS, written_documents
from merge_core.recipe.places import named_models, value_at

WEIGHT = "weight"


@dataclass(frozen=True)
class Cell:
    """One number of the long recipe: a parameter at one tensor of the result, of one model or for all.

    Attributes:
        output: the tensor.
        slot: the parameter there.
        tensor: the name in which filters are looked for: the tensor's in the model, or of what is for all the result's.
        value: the number.
        moved: how much it moves the model: squared length of the task vector there; without a base, of the tensor.
        depth: where a gradient over the layers is read there: 0 at the first, 1 at the last.
    """

    output: str
    slot: ParameterSlot
    tensor: str
    value: float
    moved: float = 1.0
    depth: float = 0.0


@dataclass(frozen=True)
class Site:
    """A place of the recipe where a parameter is set, with the numbers that it has there.

    Attributes:
        place: in the recipe.
        low, high: its range.
        cells: its numbers.
        default: what holds for all of them where the recipe does not say it; None where it has to.
        model: of a weight, the place of its model, if a recipe that lacks the model means the same as a weight of 0.
        fewest: how many of the models beside that one have to stay, itself included.
    """

    place: Place
    low: float
    high: float
    cells: tuple[Cell, ...]
    default: float | None = None
    model: Place | None = None
    fewest: int = 1

    def clip(self, value: float) -> float:
        """The number of the range that is nearest."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class LongRecipe:
    """A search's best recipe, as the numbers that were searched and all else.

    Attributes:
        recipe: as it was scored.
        sites: where numbers stand that were searched; what else was searched stays as it is.
        outline: the recipe that all forms of it are, with any numbers in the sites.
    """

    recipe: RecipeMapping
    sites: tuple[Site, ...]
    outline: RecipeMapping

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
        empty = cls(dict(best.recipe), (), outline.recipe)
        marks = marks_of(outline.ranges)  # by which it is told which tensors have their numbers from where
        places = {mark: place for place, mark in marks.items()}
        marked, sloped = (
            _plan(prepared, empty.with_numbers(settings))
            for settings in (marks, {place: list(ends) for place, ends in outline.ranges.items()})
        )
        values = {job.output: _numbers(job) for job in _plan(prepared, best.recipe).jobs}
        slopes = {job.output: _numbers(job) for job in sloped.jobs}
        moved = _moved(prepared)
        cells: dict[Place, list[Cell]] = {place: [] for place in outline.ranges}
        for job in marked.jobs:
            for slot, mark in _numbers(job).items():
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
            put(empty.outline, place, min(max(0.0, low), high))
        return replace(empty, sites=tuple(_with_defaults(prepared, template, empty, sites)))

    @property
    def cells(self) -> list[Cell]:
        """All numbers that were searched, site after site."""
        return [cell for site in self.sites for cell in site.cells]

    def with_numbers(self, settings: Mapping[Place, Any]) -> RecipeMapping:
        """The recipe with other settings in some places, everything else as the best has it.

        Args:
            settings: place of a parameter → what is written there.
        """
        recipe: RecipeMapping = unshared_copy(self.outline)
        for place, setting in settings.items():
            put(recipe, place, setting)
        return recipe

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


def skips_weightless(method: Method) -> bool:
    """Whether a model with a weight of 0 changes no bit of a result; of the user's own functions that is not known."""
    return WEIGHT in method.by_name and not method.code and (method.uses_task_vectors or method.adds_all)


def _by_list(sites: Sequence[Site]) -> dict[Place, list[Site]]:
    """The weights of models that may be left out, by the list in which they stand beside one another."""
    found: dict[Place, list[Site]] = {}
    for site in sites:
        if site.model is not None:
            found.setdefault(site.model[:-1], []).append(site)
    return found


def _with_defaults(prepared: Prepared, template: Template, long: LongRecipe, sites: Sequence[Site]) -> Iterator[Site]:
    """The sites with what a recipe may leave out of them."""
    documents = {site.place: _document_of(template, long.outline, site.place) for site in sites}
    methods = {place: METHODS[document["merge_method"]] for place, (_, document) in documents.items()}
    bare = long.with_numbers({site.place: site.cells[0].value for site in sites})
    optional = [
        site for site in sites if not isinstance(methods[site.place].by_name[site.cells[0].slot.name].default, Required)
    ]
    for site in optional:
        remove(bare, site.place)
    unsaid = {job.output: _numbers(job) for job in _plan(prepared, bare).jobs} if optional else {}
    found = []
    for site in sites:
        values = {unsaid[cell.output].get(cell.slot) for cell in site.cells} if site in optional else {None}
        value = values.pop()
        said = values or value is None or site.clip(value) != value
        found.append(site if said else replace(site, default=value))
    may_go = {
        site.place: model
        for site in found
        if (model := _optional_model(site, *documents[site.place], methods[site.place])) is not None
        and all(one.default is not None or one == site for one in found if one.place[: len(model)] == model)
    }
    for site in found:
        model = may_go.get(site.place)
        if model is None:
            yield site
            continue
        base = documents[site.place][1].get("base_model")
        beside: Any = value_at(long.outline, model[:-1])
        others = sum(one["model"] != base for one in beside) - sum(one[:-1] == model[:-1] for one in may_go.values())
        yield replace(site, model=model, fewest=max(0, max(1, methods[site.place].minimum_models) - others))


def _optional_model(site: Site, place: Place, document: Mapping[str, Any], method: Method) -> Place | None:
    """The place of the model whose weight a site is, if its method takes a weight of 0 for a model that is not there.

    Args:
        site: the weight, or another parameter.
        place: of its document.
        document: that one.
        method: its method.
    """
    model = site.place[:-2]
    beside = model[len(place) :]
    is_weight = site.cells[0].slot.name == WEIGHT and beside[-2:-1] in (("models",), ("sources",))
    if not is_weight or not skips_weightless(method) or site.clip(0.0) != 0.0:
        return None
    base = document.get("base_model")
    named: Any = value_at(document, (*beside, "model"))
    # The first of models without a base is what the result's config and tokenizer are from.
    return None if named == base or (base is None and beside[-1] == 0) else model


def _document_of(template: Template, recipe: Mapping[str, Any], place: Place) -> tuple[Place, Mapping[str, Any]]:
    return next(own for own in own_documents(template, recipe) if place[: len(own[0])] == own[0])


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


def _numbers(job: TensorJob) -> dict[ParameterSlot, float]:
    """The parameters of a tensor that are numbers."""
    own = [
        (ParameterSlot(name, position), value)
        for position, source in enumerate(job.inputs)
        for name, value in source.parameters
    ]
    shared = [(ParameterSlot(name), value) for name, value in job.settings]
    return {
        slot: float(value)
        for slot, value in [*own, *shared]
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


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
