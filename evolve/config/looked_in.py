"""The directory that relative names in a search or a recipe start from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evolve.trials.run_directory import RunDirectory
from merge_core import MergeError
from merge_core.yaml_text import read_yaml


def looked_in(search: Path, content: Mapping[str, Any]) -> Path:
    """The directory for a search.yml: its own, or the one that it names.

    Args:
        search: the file.
        content: what stands in it. A directory that it names and that is gone, as of a run that was moved, is passed
            over: what is missing then is told by its own name.
    """
    own, named = search.resolve().parent, content.get("relative_to")
    return (own / named).resolve() if isinstance(named, str) and os.path.isdir(own / named) else own


def beside_or_here(name: str, directory: Path, is_there: Callable[[Path], bool] = os.path.isdir) -> Path | None:
    """The directory that a name means; None of one that is not there.

    Args:
        name: as a file has it: any text, also one that is too long for the name of a file.
        directory: where it is looked for first; then in the working directory.
        is_there: what else than a directory will do.
    """
    return next((path for path in (directory / name, Path(name)) if is_there(path)), None)


def looked_in_by_recipe(recipe: Path) -> Path:
    """The directory for a merge recipe: that of the search whose run left it, but for the short form; else its own."""
    own = recipe.resolve().parent
    run, content = _run_of(recipe)
    return own if run is None or own == run.simple.parent else looked_in(run.search, content)


def seed_of_recipe(recipe: Path) -> int:
    """The seed of its randomised methods: that of the search whose run left it, else 0."""
    seed = _run_of(recipe)[1].get("seed", 0)
    return seed if isinstance(seed, int) else 0


def _run_of(recipe: Path) -> tuple[RunDirectory | None, Mapping[str, Any]]:
    """The run that left a recipe, which is found there by its name, and what stands in its search."""
    place = recipe.resolve()
    for run in (RunDirectory(place.parent), RunDirectory(place.parent.parent)):
        left = place in (run.recipe, run.simple) or place.parent == run.pareto
        if left and run.search.is_file() and run.holds_run():
            try:
                (content,) = read_yaml(run.search)
            except (MergeError, ValueError):
                break
            if isinstance(content, Mapping):
                return run, content
    return None, {}
