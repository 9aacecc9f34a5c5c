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
    """Of a merge recipe. One that a run left names models as its search does, and is found in a run by its name."""
    own = recipe.resolve().parent
    for directory in (RunDirectory(own), RunDirectory(own.parent)):
        left = own / recipe.name == directory.recipe or own == directory.pareto
        if left and directory.search.is_file() and directory.holds_run():
            try:
                (content,) = read_yaml(directory.search)
            except (MergeError, ValueError):
                return own
            return looked_in(directory.search, content) if isinstance(content, Mapping) else own
    return own
