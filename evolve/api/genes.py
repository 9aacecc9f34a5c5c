"""Genes as objects, for recipes that are written in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from evolve.config.schema_problems import schema_problems
from evolve.problems import ConfigError, Problem
from evolve.space.genes import ChoiceGene, RangeGene
from merge_core.bounds import DEPTH

Gene = TypeVar("Gene", RangeGene, ChoiceGene)


def gene(
    low: float,
    high: float,
    *,
    layers: Literal["each"] | Mapping[str, int] | None = None,
    filters: Sequence[str] | Literal["each_tensor"] | None = None,
    init: float | None = None,
    log: bool = False,
    step: float | None = None,
    sigma: float | None = None,
    name: str | None = None,
) -> RangeGene:
    """A number to be found, for a place in a recipe where a number would stand.

    Args:
        low: smallest value.
        high: largest value.
        layers: `"each"`, `{"blocks": N}` or `{"knots": N}`: a gene per layer group instead of one.
        filters: substrings of tensor names: a gene for each, and one for the rest; or `"each_tensor"`.
        init: where the search starts; by default at the best parent or the uniform merge.
        log: search on a logarithmic scale.
        step: only low, low + step, low + 2 * step, ...
        sigma: first standard deviation, in the gene's own unit.
        name: genes of one name share their value.

    Raises:
        ConfigError: bounds or options that contradict each other.

    Example:
        >>> gene(0, 1.2, layers="each").high
        1.2
    """
    given = {
        "low": low,
        "high": high,
        "layers": layers,
        "filters": filters,
        "init": init,
        "log": log,
        "step": step,
        "sigma": sigma,
        "name": name,
    }
    return _parsed("gene", given, RangeGene)


def choice(*choices: str | bool | int | float, init: Any = None, name: str | None = None) -> ChoiceGene:
    """One of several values to be found: names of methods or models, numbers, booleans.

    Args:
        choices: at least two.
        init: where the search starts.
        name: genes of one name share their value.

    Raises:
        ConfigError: fewer than two choices, or two that are the same.

    Example:
        >>> choice("ties", "dare_ties").choices
        ('ties', 'dare_ties')
    """
    given = {"choices": choices, "init": init, "name": name}
    return _parsed("choice", given, ChoiceGene)


def plain(value: Any, *place: str | int) -> Any:
    """A recipe as its file would say it: genes as mappings, paths as texts, tuples and arrays as lists.

    Args:
        value: a recipe, or a part of one.
        place: where it is, for errors.

    Raises:
        ConfigError: something in it could stand in no file.
    """
    if len(place) > DEPTH:
        raise ConfigError(Problem(place[:3], f"nested more than {DEPTH} deep, or inside itself"))
    if value is None or (isinstance(value, str | bool | int | float) and not hasattr(value, "tolist")):
        return value
    if isinstance(value, RangeGene | ChoiceGene):
        return plain(value.model_dump(mode="json", exclude_unset=True), *place)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, *place, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, *place, number) for number, inner in enumerate(value)]
    if isinstance(value, os.PathLike):
        return str(value)
    if hasattr(value, "tolist"):  # a number or an array of numpy's
        return plain(value.tolist(), *place)
    if type(value).__module__ == "torch":  # its dtypes
        return str(value)
    kind = value.__name__ if isinstance(value, type) else f"an object of type {type(value).__name__}"
    raise ConfigError(Problem(place, f"expected text, numbers, lists and mappings, as a file holds them, got {kind}"))


def _parsed(where: str, given: Mapping[str, Any], kind: type[Gene]) -> Gene:
    said = {key: value for key, value in given.items() if value is not None and value is not False}
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        problems = schema_problems(error, said, kind)
        raise ConfigError(*(problem.within(where) for problem in problems)) from None
