"""Tasks and constraints with functions and lists in them, as a configuration that names both."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evolve.api.genes import plain
from evolve.problems import ConfigError, Problem
from evolve.scoring.scorers.given_functions import MODULE

Task = str | Mapping[str, Any] | Callable[..., Any]
"""A task's name, its settings as in search.yml, or a function `scorer(model, items)`."""

ITEMS = "items"
"""The parameter that may be one by keyword alone."""


class GivenObjects:
    """Takes functions and lists out of a configuration, and puts their names in.

    Attributes:
        functions: name → function, of all that were taken out.
        staying: names of those that are called where the search is, and nowhere else.
    """

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}
        self.staying: set[str] = set()

    def tasks(self, tasks: Task | Sequence[Task]) -> list[Any]:
        """The entries of `tasks:`, of one task or of several."""
        if isinstance(tasks, str | Mapping) or callable(tasks) or not isinstance(tasks, Iterable):
            return [self.task(tasks)]
        return [self.task(task) for task in tasks]

    def task(self, task: Task) -> Any:
        """An entry of `tasks:`.

        A function alone brings its items as the default of its second parameter, `def scorer(model, items=ITEMS)`, or
        of `items`, where it takes these by keyword; one of the model alone returns a single number for it.

        Raises:
            ConfigError: a function takes items, and none are given.
        """
        if not (callable(task) or isinstance(task, Mapping)):
            return task
        return self._entry(_with_items({"python": task} if callable(task) else task, "tasks"))

    def objective(self, function: Callable[..., Any]) -> str:
        """What stands at `objective:`."""
        taken = self._take(function, f"objective_{_name(function)}")
        self.staying.add(taken.partition(":")[2])
        return taken

    def constraints(self, constraints: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[Any]:
        """The entries of `constraints:`, of one or of several."""
        if isinstance(constraints, Mapping) or not isinstance(constraints, Iterable):
            return [self.constraint(constraints)]
        return [self.constraint(constraint) for constraint in constraints]

    def constraint(self, constraint: Mapping[str, Any]) -> Any:
        """An entry of `constraints:`; a function without `answers_of` brings its items as one of a task does.

        Raises:
            ConfigError: a function stands alone, without what its number must be; or takes items, and none are given.
        """
        if callable(constraint):
            name = _name(constraint)
            message = f'{name} is no constraint without its bound. Write {{"python": {name}, "at_most": NUMBER}}'
            raise ConfigError(Problem(("constraints",), message))
        if not isinstance(constraint, Mapping):
            return constraint
        return self._entry(constraint if "answers_of" in constraint else _with_items(constraint, "constraints"))

    def _entry(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(settings)
        if callable(found.get("python")):
            found["python"] = self._take(found["python"], _name(found["python"]))
        items = _listed(found.get("items"))
        if callable(items) or isinstance(items, list | tuple):
            name = f"{str(found.get('python', 'task')).rpartition(':')[2]}_items"
            function = items if callable(items) else functools.partial(list, items)
            found["items"] = {"python": self._take(function, name)}
        return {key: plain(value, key) for key, value in found.items()}

    def _take(self, function: Callable[..., Any], name: str) -> str:
        """The name of a function in the configuration; another of the same name has a number behind it."""
        names = [name, *(f"{name}_{number}" for number in range(2, len(self.functions) + 3))]
        free = next(one for one in names if self.functions.get(one, function) is function)
        self.functions[free] = function
        return f"{MODULE}:{free}"


def _with_items(settings: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    """An entry of `place` whose function takes the model and items, with the items that the function brings."""
    function = settings.get("python")
    if not callable(function):
        return settings
    settings, keyword = dict(settings), _keyword_items(function)
    if keyword is not None:  # which the scorer gives as the second argument
        settings["python"] = _named(functools.partial(_by_keyword, function), function)
    if "items" not in settings:
        parameter = keyword or _second_argument(function)
        if parameter is None:
            settings |= {"python": _named(functools.partial(_of_whole_model, function), function), "items": 1}
        else:
            settings["items"] = _given_items(function, parameter, place)
    return settings


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "") or type(getattr(function, "func", function)).__name__
    return re.sub(r"\W+", "_", name).strip("_") or "scorer"


def _named(partial: functools.partial[Any], function: Callable[..., Any]) -> functools.partial[Any]:
    partial.__name__ = _name(function)  # type: ignore[attr-defined]
    return partial


def _second_argument(function: Callable[..., Any]) -> inspect.Parameter | None:
    """The parameter of a function that is given the items; None where it takes none."""
    positional = [one for one in _parameters(function) if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return None if len(positional) < 2 else positional[1]


def _keyword_items(function: Callable[..., Any]) -> inspect.Parameter | None:
    """The parameter of a function that takes items by keyword alone, `def scorer(model, *, items=ITEMS)`."""
    return next((one for one in _parameters(function) if one.name == ITEMS and one.kind is one.KEYWORD_ONLY), None)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # a function written in C may not say
        return []


def _given_items(function: Callable[..., Any], items: inspect.Parameter, place: str) -> Sequence[Any] | int:
    if items.default is inspect.Parameter.empty or items.default is None:
        name = _name(function)
        message = f"{name} takes items, and none are given. Write def {name}(model, {items.name}=ITEMS)"
        raise ConfigError(Problem((place,), f'{message}, or {{"python": {name}, "items": ITEMS}}'))
    return items.default  # type: ignore[no-any-return]


def _listed(items: Any) -> Any:
    """Items in any form that has an order, as a list; what is none is left to the reader of the configuration.

    Raises:
        ConfigError: they have no order.
    """
    if isinstance(items, set | frozenset):
        raise ConfigError(Problem(("tasks",), "items are a set, which has no order. Give sorted(ITEMS)"))
    if hasattr(items, "to_numpy") and hasattr(items, "columns"):  # a table
        return items.to_dict("records")
    if hasattr(items, "tolist"):
        return items.tolist()
    return list(items) if isinstance(items, Iterable) and not isinstance(items, str | bytes | Mapping) else items


def _by_keyword(function: Callable[..., Any], model: Any, items: Sequence[Any]) -> Any:
    return function(model, items=items)


def _of_whole_model(function: Callable[[Any], Any], model: Any, items: Sequence[Any]) -> list[Any]:
    return [function(model)] * len(items)
