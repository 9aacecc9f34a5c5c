"""Constraints: what makes a candidate infeasible rather than bad, and by how much.

Candidates are ranked by the rule of Deb (An efficient constraint handling method for genetic algorithms, 2000): the
feasible ones by their objective; the infeasible ones below them all, by the sum of their violations.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evolve.scoring.content_keys import content_key
from evolve.scoring.errors import Problem, ScoringError, TaskError, did_you_mean
from evolve.scoring.language_model import LanguageModel
from evolve.scoring.scorers.constraints import BUILT_IN
from evolve.scoring.scorers.item_failures import one_line
from evolve.scoring.scorers.item_source import ItemSource, load_items, own_copy
from evolve.scoring.scorers.python import by_place, read_result
from evolve.scoring.scorers.text_model import PreparedRequests, TextModel
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.scorers.user_functions import FUNCTION_PATTERN, check_call, code_of, load_function

_OVER: dict[str, Callable[[Sequence[float]], float]] = {"mean": statistics.fmean, "max": max, "min": min}


class ConstraintConfig(BaseModel):
    """A bounded number. A candidate outside the bounds is infeasible: never the best, and ranked below all others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str = Field(
        pattern=rf"{FUNCTION_PATTERN}|^[a-z_]+$",
        description=f"{', '.join(f'`{name}`' for name in BUILT_IN)}, or your own `package.module:function`: with "
        "answers_of `function(answers)`, with items `function(model, items)`, returning one number for each.",
    )
    alias: str | None = Field(default=None, min_length=1, description="The name in reports; default: the function's.")
    answers_of: str | None = Field(
        default=None, min_length=1, description="Name or alias of the task whose generated answers are checked."
    )
    items: ItemSource | None = Field(default=None, description="Instead of answers_of: items, as for a `python:` task.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Passed to the function by name.")
    over: Literal["mean", "max", "min"] = Field(
        default="mean", description="What is bounded: the `mean`, `max` or `min` of the numbers."
    )
    at_most: float | None = Field(default=None, allow_inf_nan=False, description="Upper bound, inclusive.")
    at_least: float | None = Field(default=None, allow_inf_nan=False, description="Lower bound, inclusive.")

    @property
    def label(self) -> str:
        """The name in reports."""
        return self.alias or self.python.rpartition(":")[2]

    @property
    def where(self) -> str:
        """What names the constraint in errors."""
        return f"constraint {self.label!r}"

    @model_validator(mode="after")
    def _consistent(self) -> ConstraintConfig:
        if self.at_most is None and self.at_least is None:
            raise ValueError("bounds nothing; set at_most, at_least or both")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is above at_most {self.at_most:g}")
        if (self.answers_of is None) == (self.items is None):
            found = "neither" if self.items is None else "both"
            raise ValueError(f"exactly one of answers_of and items is needed, found {found}")
        return self


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bounded number of a model.

    Attributes:
        label: In reports.
        answers_of: The task whose answers it is computed from, None if it asks the model itself.
        numbers: Model and answers -> one number per answer or item.
        over: `mean`, `max` or `min`: which of their numbers is bounded.
        at_most: Upper bound, if any.
        at_least: Lower bound, if any.
        content_keys: What its numbers depend on beside the configuration and the model: what it is -> hash.
        runs_user_code: Whether its function is the user's.
    """

    label: str
    answers_of: str | None
    numbers: Callable[[LanguageModel, Sequence[str]], list[float]]
    over: str
    at_most: float | None
    at_least: float | None
    content_keys: Mapping[str, str] = field(default_factory=dict)
    runs_user_code: bool = False

    def measure(self, model: LanguageModel, answers: Sequence[str]) -> float:
        """The number that is bounded.

        Args:
            model: The model.
            answers: Of the task that `answers_of` names.

        Raises:
            ScoringError: It cannot be computed for this model.
            TaskError: The task gives no answers, or the function returns something else than numbers.
        """
        if self.answers_of is not None and not answers:
            raise TaskError(
                f"constraint {self.label!r}: task {self.answers_of!r} generates no answers. Name one that does, or use "
                "items."
            )
        return _OVER[self.over](self.numbers(model, answers))

    def violation(self, value: float) -> float:
        """By how much a value is outside the bounds: as a share of the bound, where that is not 0; else 0."""
        if self.at_most is not None and value > self.at_most:
            return (value - self.at_most) / (abs(self.at_most) or 1.0)
        if self.at_least is not None and value < self.at_least:
            return (self.at_least - value) / (abs(self.at_least) or 1.0)
        return 0.0


_HIGHEST_RANK = -1e100  # of infeasible candidates; not lower, for samplers of several objectives multiply such numbers


def rank_value(total_violation: float) -> float:
    """What an optimizer that maximises is told of an infeasible candidate.

    It is below every objective that a feasible candidate can reasonably have, and falls as the violation grows.

    Args:
        total_violation: The sum over all constraints, above 0.
    """
    return _HIGHEST_RANK * (1 + total_violation / (1 + total_violation))


def is_infeasible(fitness: float) -> bool:
    """Whether a number that an optimizer is told is a `rank_value`."""
    return fitness <= _HIGHEST_RANK


def violation_of_rank(fitness: float) -> float:
    """The total violation that a `rank_value` was made of, as far as its digits tell; 0 for any other number."""
    if not is_infeasible(fitness):
        return 0.0
    share = fitness / _HIGHEST_RANK - 1
    return share / max(1 - share, 1e-15)


def load_constraints(
    configs: Sequence[ConstraintConfig], search_paths: Sequence[Path] = (), directory: Path = Path()
) -> tuple[Constraint, ...]:
    """Load the functions and the items of constraints.

    Args:
        configs: The constraints, in order.
        search_paths: Directories with the user's modules and items.
        directory: Of the file that names them; it is looked in first.

    Raises:
        TaskError: With everything that is wrong with any of them; a place begins with the constraint's number.
    """
    paths = SearchPaths(directory, tuple(search_paths))
    problems: list[Problem] = []
    constraints: list[Constraint] = []
    for index, config in enumerate(configs):
        try:
            numbers = _of_answers(config, paths) if config.items is None else _of_items(config, paths)
        except TaskError as error:
            problems += [
                Problem((index, *problem.place), f"{config.where}: {problem.message}") for problem in error.problems
            ]
        else:
            bounds = (config.over, config.at_most, config.at_least)
            keys = _content_keys(config, paths)
            constraints.append(
                Constraint(config.label, config.answers_of, numbers, *bounds, keys, ":" in config.python)
            )
    if problems:
        raise TaskError(*problems)
    return tuple(constraints)


def _content_keys(config: ConstraintConfig, paths: SearchPaths) -> dict[str, str]:
    keys = code_of(config.python, paths) if ":" in config.python else {}
    return keys if config.items is None else {**keys, "items": content_key(load_items(config.items, paths))}


def _function(config: ConstraintConfig, paths: SearchPaths) -> Callable[..., Any]:
    if ":" in config.python:
        return load_function(config.python, paths)
    if config.python not in BUILT_IN:
        raise TaskError(
            f"no constraint is called {config.python!r}.{did_you_mean(config.python, BUILT_IN)} "
            f"There are {', '.join(BUILT_IN)}; one of your own is `package.module:function`."
        )
    return BUILT_IN[config.python]


def _of_answers(config: ConstraintConfig, paths: SearchPaths) -> Callable[[LanguageModel, Sequence[str]], list[float]]:
    function = _function(config, paths)
    check_call(function, config.python, 1, config.arguments, "constraint(answers, **arguments)")

    def numbers(model: LanguageModel, answers: Sequence[str]) -> list[float]:
        return _numbers(config, len(answers), function, (list(answers),))

    return numbers


def _of_items(config: ConstraintConfig, paths: SearchPaths) -> Callable[[LanguageModel, Sequence[str]], list[float]]:
    function = _function(config, paths)
    check_call(function, config.python, 2, config.arguments, "constraint(model, items, **arguments)")
    items = load_items(config.items or 0, paths)
    prepared = PreparedRequests()

    def numbers(model: LanguageModel, answers: Sequence[str]) -> list[float]:
        return _numbers(config, len(items), function, (TextModel(model, prepared), own_copy(items)))

    return numbers


def _numbers(
    config: ConstraintConfig, count: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> list[float]:
    try:
        results = function(*arguments, **config.arguments)
    except (ScoringError, TaskError, MemoryError):
        raise
    except Exception as error:  # the user's code can raise anything
        raise ScoringError(f"{config.where}: {one_line(error)}") from error
    if isinstance(results, int | float):
        results = [results] * count  # one number for all
    found: Mapping[int, Any] = by_place(results, range(count), config.where, config.python)
    numbers = []
    for place, result in found.items():
        try:
            numbers.append(read_result(result)[0])
        except ValueError as error:
            raise ScoringError(f"{config.where}: number {place}: {error}") from error
    return numbers
