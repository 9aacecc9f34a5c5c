"""Callbacks by name, as `callbacks:` in search.yml has them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from typing import Any

from evolve.problems import ConfigError, placed
from evolve.scoring.errors import did_you_mean
from evolve.scoring.foreign_code import without_escape
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.scorers.user_functions import FUNCTION_PATTERN, load_function
from evolve.trackers.callback import Callback

TRACKERS: dict[str, str] = {
    "tensorboard": "evolve.trackers.tensorboard:TensorBoard",
    "mlflow": "evolve.trackers.mlflow:MLflow",
    "wandb": "evolve.trackers.wandb:WeightsAndBiases",
}
"""Name, which is also that of the package and of the extra that brings it → the class."""

HERE = SearchPaths()
"""The working directory."""


def find_callback(name: str, search_paths: SearchPaths = HERE) -> type[Callback]:
    """The class that search.yml calls `name`.

    Args:
        name: of a tracker, or `module:Class` of the user's own.
        search_paths: where the module is looked for.

    Raises:
        ConfigError: there is none, or its package is not installed.
    """
    if ":" not in name:
        return _tracker(name)
    if not re.fullmatch(FUNCTION_PATTERN, name):
        raise ConfigError(f"expected a name or MODULE:CLASS such as my_module:MyCallback, got {name!r}")
    with placed():
        found: Any = load_function(name, search_paths)
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise ConfigError(f"{name} is no subclass of evolve.Callback")
    return found


def _tracker(name: str) -> type[Callback]:
    if name not in TRACKERS:
        hint = did_you_mean(name, TRACKERS)
        raise ConfigError(f"no tracker is called {name!r}.{hint} Known: {', '.join(TRACKERS)}; or module:Class")
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"{name} is not installed. Install it: pip install 'evolve-merge[{name}]'")
    module, _, attribute = TRACKERS[name].partition(":")
    found: type[Callback] = getattr(importlib.import_module(module), attribute)
    return found


def check_callback_options(kind: type[Callback], options: Mapping[str, Any]) -> None:
    """Refuse options that a callback does not take.

    Raises:
        ConfigError: some are wrong, or missing.
    """
    try:
        inspect.signature(kind).bind(**options)
    except TypeError as error:
        raise ConfigError(f"{kind.__name__}{inspect.signature(kind)}: {error}") from None


def create_callback(kind: type[Callback], options: Mapping[str, Any]) -> Callback:
    """A callback, before anything is scored: what is wrong with it is a mistake that can be mended.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        with without_escape():
            return kind(**options)
    except Exception as error:  # the user's code, and packages' that look for servers, can raise anything
        raise ConfigError(f"{kind.__name__} cannot be made: {type(error).__name__}: {error}") from error
