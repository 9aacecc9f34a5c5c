"""A picture of a run by its name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from evolve.problems import ConfigError
from evolve.report import pictures
from evolve.report.pictures.registry import PICTURES, Picture
from evolve.report.run_record import RunRecord

LAST = "Genes"
CHAPTERS = {
    "Scores": ("scores", "front"),
    "Search": ("history", "gradient", "racing"),
    LAST: ("blocks", "path", "genes", "top_genes", "parallel", "importances"),
}
"""Chapter of the report -> its pictures; the last has those of plugins, too."""
ORDER = tuple(name for names in CHAPTERS.values() for name in names)


def all_pictures() -> dict[str, Picture]:
    """Name → picture, in the order of the report; those of plugins come last."""
    for module in pkgutil.iter_modules(pictures.__path__):
        importlib.import_module(f"{pictures.__name__}.{module.name}")
    return {name: PICTURES[name] for name in dict.fromkeys((*ORDER, *PICTURES))}


def draw(run: RunRecord, name: str) -> Any:
    """A picture as a plotly figure.

    Raises:
        ConfigError: there is none of that name, or the run has nothing to show in it.
    """
    known = all_pictures()
    if name not in known:
        raise ConfigError(f"plot: no picture is called {name!r}; there are {', '.join(known)}")
    found = known[name].draw(run)
    if found is None:
        raise ConfigError(f"plot: {run.directory} has nothing to show as {name!r}: {known[name].about}")
    return found
