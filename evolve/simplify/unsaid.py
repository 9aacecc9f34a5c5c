"""What a short recipe need not say: numbers that hold anyway, and models whose weight is 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evolve.preflight.prepare import Prepared
from evolve.problems import Place
from evolve.simplify.outline import Outline, own_documents, plan_of
from evolve.simplify.sites import Site, numbers_of
from evolve.space.genes import remove
from evolve.space.template import Template
from merge_core import METHODS, Method
from merge_core.methods.method import Required
from merge_core.recipe.places import value_at

WEIGHT = "weight"


def with_unsaid(prepared: Prepared, template: Template, outline: Outline, sites: Sequence[Site]) -> Iterator[Site]:
    """The sites with what a recipe may leave out of them.

    Args:
        prepared: the search.
        template: its numbers.
        outline: the recipe that they are of.
        sites: they.
    """
    documents = {site.place: _document_of(template, outline.recipe, site.place) for site in sites}
    methods = {place: METHODS[document["merge_method"]] for place, (_, document) in documents.items()}
    bare = outline.with_numbers({site.place: site.cells[0].value for site in sites})
    optional = [
        site for site in sites if not isinstance(methods[site.place].by_name[site.cells[0].slot.name].default, Required)
    ]
    for site in optional:
        remove(bare, site.place)
    unsaid = {job.output: numbers_of(job) for job in plan_of(prepared, bare).jobs} if optional else {}
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
        beside: Any = value_at(outline.recipe, model[:-1])
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


def skips_weightless(method: Method) -> bool:
    """Whether a model with a weight of 0 changes no bit of a result; of the user's own functions that is not known."""
    return WEIGHT in method.by_name and not method.code and (method.uses_task_vectors or method.adds_all)
