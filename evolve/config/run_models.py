"""A model of a search that an earlier run found: its best recipe stands for it, and is merged where it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evolve.config.looked_in import beside_or_here, looked_in_by_recipe, seed_of_recipe
from evolve.problems import ConfigError, Problem, noted
from evolve.space.genes import put, unshared_copy
from evolve.space.template import Template
from evolve.trials.run_directory import RunDirectory
from merge_core import METHODS, MergeError, Recipe, load_recipes
from merge_core.recipe.documents import order_documents, outside_models
from merge_core.recipe.model_reference import local_directories
from merge_core.recipe.places import named_models


def with_run_models(template: Template, directory: Path, seed: int) -> Template:
    """The recipe with the documents that its models stand for which are runs, each by the name of its directory.

    Args:
        template: the recipe.
        directory: where local models are looked for first.
        seed: of its randomised methods.

    Raises:
        ConfigError: with every run whose best recipe cannot stand for a model.
    """
    names: dict[str, str] = {}
    documents: dict[str, tuple[Mapping[str, Any], ...]] = {}
    problems: list[Problem] = []
    for model, place in template.places.items():
        run = run_called(model, directory)
        if run is None:
            continue
        name = run.path.resolve().name
        while name in documents or name in template.places.keys() - {model}:
            name += "_best"
        with noted(problems, *place):
            documents[name] = tuple(_documents(name, model, run.recipe, directory, seed))
            names[model] = name
    if problems:
        raise ConfigError(*problems)
    return template.with_run_models(names, documents) if names else template


def run_called(name: str, directory: Path) -> RunDirectory | None:
    """The run that the name of a model means; None of anything else that it may mean.

    Args:
        name: as a recipe has it.
        directory: where it is looked for first.
    """
    path = beside_or_here(name, directory)
    run = None if path is None else RunDirectory(path)
    return run if run is not None and run.search.is_file() and run.holds_run() else None


def _documents(name: str, run: str, file: Path, directory: Path, seed: int) -> Iterator[Mapping[str, Any]]:
    """The documents of a run's best recipe as they are written here: the last has the name, others begin with it."""
    if not file.is_file():
        raise ConfigError(Problem((), f"the run {run} has found nothing yet. Let it go on, or name another model"))
    try:
        ordered = order_documents(load_recipes(file))
    except MergeError as error:
        raise ConfigError(Problem((), f"the best of the run {run} cannot be read: {error}")) from error
    drawn = any(METHODS[document.merge_method].randomised for document in ordered)
    if drawn and seed_of_recipe(file) != seed:
        found = f"the best of the run {run} was drawn with seed {seed_of_recipe(file)}, and this search has {seed}"
        raise ConfigError(Problem((), f"{found}. Give it that seed"))
    names = _names_here(ordered, looked_in_by_recipe(file), directory)
    names |= {str(document.name): f"{name}_{document.name}" for document in ordered[:-1]}
    for document in ordered:
        written: dict[str, Any] = unshared_copy(document.to_mapping())
        for mention in list(named_models(written)):
            put(written, mention.place, names.get(str(mention.value), mention.value))
        own = name if document is ordered[-1] else names[str(document.name)]
        yield {**written, "name": own}


def _names_here(documents: tuple[Recipe, ...], there: Path, here: Path) -> dict[str, str]:
    """Models as they are named for whoever looks in one directory → the same for whoever looks in another."""
    found = {}
    for document in documents:
        for reference in outside_models(document, documents):
            own = local_directories(reference, there)
            if own and own != local_directories(reference, here):
                found[str(reference)] = "+".join(str(path.resolve()) for path in own)
    return found
