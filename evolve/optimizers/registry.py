"""The optimizers by name, to which every file of this package adds its own, and anyone else's in the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from evolve.optimizers.optimizer import Optimizer, SearchProblem
from evolve.optimizers.own_optimizer import OwnOptimizer
from evolve.problems import ConfigError, Problem, format_place, placed
from evolve.scoring.errors import did_you_mean
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.scorers.user_functions import FUNCTION_PATTERN, load_function

Kind = TypeVar("Kind", bound=type[Optimizer])

HERE = SearchPaths()
"""The working directory."""

OPTIMIZERS: dict[str, type[Optimizer]] = {}
"""`optimizer.name` in search.yml → the class."""


def register(optimizer: Kind) -> Kind:
    """Decorate the class of an optimizer.

    Raises:
        ValueError: one of its names is another's.
    """
    for name in (optimizer.name, *optimizer.aliases):
        if name in OPTIMIZERS or any(name in other.aliases for other in OPTIMIZERS.values()):
            raise ValueError(f"an optimizer {name!r} is registered already. Choose another name")
    OPTIMIZERS[optimizer.name] = optimizer
    return optimizer


def find_optimizer(name: str, search_paths: SearchPaths = HERE) -> type[Optimizer]:
    """The optimizer that search.yml calls `name`.

    Args:
        name: of one that is registered, or `module:Class` of the user's own.
        search_paths: where the module is looked for.

    Raises:
        ConfigError: there is none.
    """
    if ":" in name:
        return _own(name, search_paths)
    for optimizer in OPTIMIZERS.values():
        if name.lower() in (optimizer.name, *optimizer.aliases):
            return optimizer
    known = ", ".join(OPTIMIZERS)
    raise ConfigError(f"no optimizer is called {name!r}.{did_you_mean(name, OPTIMIZERS)} Known: {known}")


def _own(name: str, search_paths: SearchPaths) -> type[Optimizer]:
    if not re.fullmatch(FUNCTION_PATTERN, name):
        raise ConfigError(f"expected a name or MODULE:CLASS such as my_module:MyOptimizer, got {name!r}")
    with placed():
        found: Any = load_function(name, search_paths)
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise ConfigError(f"{name} is no subclass of evolve.optimizers.Optimizer")
    found.name = name
    return found


def create_optimizer(name: str, problem: SearchProblem, search_paths: SearchPaths = HERE) -> Optimizer:
    """An optimizer of a problem; name and paths as in `find_optimizer`.

    Raises:
        ConfigError: there is none of that name, it cannot keep several objectives apart, or an option is wrong.
        OptimizerFailedError: one of the user's own cannot be made.
    """
    optimizer = find_optimizer(name, search_paths)
    if problem.objectives > 1:
        require_several_objectives(optimizer)
    with placed("options"):
        check_options(optimizer, problem.options)
    return OwnOptimizer(optimizer, problem) if ":" in name else optimizer(problem)


def check_options(optimizer: type[Optimizer], options: Mapping[str, Any]) -> None:
    """Refuse options that an optimizer does not declare, or not so.

    Raises:
        ConfigError: some are wrong.
    """
    try:
        optimizer.options.model_validate(options)
    except ValidationError as error:
        raise ConfigError(*(_wrong_option(optimizer, detail) for detail in error.errors())) from None


def _wrong_option(optimizer: type[Optimizer], detail: ErrorDetails) -> Problem:
    if detail["type"] == "extra_forbidden":
        option = format_place(detail["loc"])
        hint = did_you_mean(option, optimizer.options.model_fields)
        return Problem((), f"{optimizer.name} has no option {option!r}.{hint}")
    return Problem(detail["loc"], f"{detail['msg']}, got {detail['input']!r}")


def require_several_objectives(optimizer: type[Optimizer]) -> None:
    """Refuse an optimizer of one objective.

    Raises:
        ConfigError: it is one.
    """
    if not optimizer.several_objectives:
        able = ", ".join(name for name, other in OPTIMIZERS.items() if other.several_objectives)
        raise ConfigError(f"{optimizer.name} has one objective; set optimizer.name to one of {able}")
