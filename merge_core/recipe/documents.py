"""Recipe files of several documents: which is the result, and in which order they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merge_core.errors import MergeError, Problem, and_more
from merge_core.recipe.model_reference import ModelReference
from merge_core.recipe.recipe import Recipe

DOCUMENTS = "documents"
"""Where the documents of a recipe of several stand, as data."""


def documents_of(recipe: Mapping[str, Any], where: str = "recipe") -> tuple[Recipe, ...]:
    """Read a recipe as data: one document, or those under `documents`.

    Args:
        recipe: as `Recipe.from_mapping`, or ``{"documents": [...]}``.
        where: the file it comes from, for messages.

    Raises:
        MergeError: as `Recipe.from_mapping`.
    """
    return tuple(Recipe.from_mapping(dict(document), where=where) for document in written_documents(recipe))


def written_documents(recipe: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The documents of a recipe as data, as they are written."""
    documents: Sequence[Mapping[str, Any]] = recipe.get(DOCUMENTS, [recipe])
    return documents


def layers_document(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document that says which layers a result has: the last, or one of those whose layers it stacks in order.

    Args:
        recipe: as data, as for `documents_of`; the last document is the result.
    """
    documents = written_documents(recipe)
    by_name = {document.get("name"): document for document in documents[:-1]}
    depth, stacked = 0, documents[-1]
    for part in documents[-1].get("slices", ()):
        source, *others = part["sources"]
        low, high = source["layer_range"]
        if others or low != depth or source["model"] not in by_name:
            return documents[-1]
        depth, stacked = high, by_name[source["model"]]
    return stacked


def order_documents(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Order documents so that each comes after those it uses by name; the result is last.

    The result is the document without a name; when all have names, the one that no other uses.

    Raises:
        MergeError: a duplicate name, a cycle, several documents without a name, or several results.
    """
    problems = []
    names = [recipe.name for recipe in recipes if recipe.name is not None]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            problems.append(Problem(("name",), f'"{name}" is given twice. Rename one document', recipes[0].where))
    unnamed = [recipe for recipe in recipes if recipe.name is None]
    if len(unnamed) > 1:
        problems.append(Problem((), "a second document without name. Name all but the final one", unnamed[1].where))
    if problems:
        raise MergeError(*problems)
    by_name = {recipe.name: recipe for recipe in recipes if recipe.name is not None}
    ordered: dict[int, Recipe] = {}

    def visit(recipe: Recipe, path: tuple[str, ...]) -> None:
        if id(recipe) in ordered:
            return
        for reference in recipe.references():
            name = str(reference)
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                message = f"documents use one another in a circle: {circle}. Break it"
                raise MergeError(Problem((), message, recipe.where))
            if name in by_name:
                visit(by_name[name], (*path, name))
        ordered[id(recipe)] = recipe

    for recipe in recipes:
        visit(recipe, () if recipe.name is None else (recipe.name,))
    result = _result(recipes, unnamed)
    return (*[recipe for recipe in ordered.values() if recipe is not result], result)


def outside_models(recipe: Recipe, documents: Sequence[Recipe]) -> tuple[ModelReference, ...]:
    """The models that a recipe names and none of the documents makes."""
    made = {document.name for document in documents if document.name is not None}
    return tuple(reference for reference in recipe.references() if str(reference) not in made)


def _result(recipes: Sequence[Recipe], unnamed: Sequence[Recipe]) -> Recipe:
    if unnamed:
        return unnamed[0]
    used = {str(reference) for recipe in recipes for reference in recipe.references()}
    results = [recipe for recipe in recipes if recipe.name not in used]
    if len(results) != 1:
        found = and_more(str(recipe.name) for recipe in results)
        message = f"several results: {found}. Remove the name of the one to make"
        raise MergeError(Problem((), message, recipes[0].where))
    return results[0]
