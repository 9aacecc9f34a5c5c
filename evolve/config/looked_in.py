"""Where what a file names is looked for first: beside it, unless a run wrote it, which knows where its search was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.trials.run_directory import RunDirectory
from merge_core import MergeError
from merge_core.yaml_text import read_yaml


def looked_in(search: Path, content: Mapping[str, Any]) -> Path:
    """Of a search.yml.

    Args:
        search: the file.
        content: what stands in it. A directory that it names and that is gone, as of a run that was moved, is passed
            over: what is missing then is told by its own name.
    """
    own, named = search.resolve().parent, content.get("relative_to")
    return (own / named).resolve() if isinstance(named, str) and (own / named).is_dir() else own


def looked_in_by_recipe(recipe: Path) -> Path:
    """Of a merge recipe. One that a run left names models as its search does, but the short one from its own place."""
    own = recipe.resolve().parent
    run, content = _run_of(recipe)
    return own if run is None or own == run.simple.parent else looked_in(run.search, content)


def seed_of_recipe(recipe: Path) -> int:
    """Of its randomised methods: of a recipe that a run left the search's, else 0."""
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
