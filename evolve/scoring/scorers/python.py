"""Scores by a Python function of the user's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field

from evolve.scoring.errors import ScoringError, TaskError
from evolve.scoring.language_model import LanguageModel
from evolve.scoring.scorer import ScoredItems
from evolve.scoring.scorers.item_failures import ON_ITEM_ERROR, OnItemError, one_line, settle
from evolve.scoring.scorers.item_source import ItemSource, load_items, own_copy
from evolve.scoring.scorers.registry import TaskKind, one_by_one, register
from evolve.scoring.scorers.statistic_scorer import StatisticScorer
from evolve.scoring.scorers.text_model import PreparedRequests, TextModel
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.scoring.scorers.user_functions import FUNCTION_PATTERN, check_call, code_of, load_function
from evolve.scoring.scores.item_statistics import MeanOfItems
from evolve.scoring.task_config import Direction, TaskConfig

LARGEST = 1e100  # score, since squares of them are added up

# What says something about the whole candidate, or the whole machine, and not about an item.
_NOT_AN_ITEMS = (ScoringError, TaskError, MemoryError, ImportError)


class PythonTask(TaskConfig):
    """A Python function `function(model, items)` that returns a number for each item; the score is their mean."""

    python: str = Field(
        pattern=FUNCTION_PATTERN,
        description="`package.module:function`, beside this file, in task_search_path, or installed. It receives a "
        "`TextModel` and a list of items, and returns a list with one number (or `{score, signal}`) per item, or a "
        "mapping from positions in that list to them.",
    )
    items: ItemSource = Field(
        description="A .jsonl, .json, .csv or .txt file; `{python: package.module:function}`, which returns a list; or "
        "a count, for the numbers from 0."
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="Passed to the function by name.")
    on_item_error: OnItemError = Field(default="fail", description=ON_ITEM_ERROR)

    @property
    def default_label(self) -> str:
        """The function's own name."""
        return self.python.partition(":")[2]


def load_python_scorer(config: PythonTask, paths: SearchPaths) -> PythonScorer:
    """Import the function and read the items.

    Raises:
        TaskError: One of them is not there, or the function cannot be called as it will be.
    """
    function = load_function(config.python, paths)
    check_call(function, config.python, 2, config.arguments, "score(model, items, **arguments)")
    return PythonScorer(
        config.label,
        config.python,
        config.direction or "maximize",
        lambda model, items: function(model, items, **config.arguments),
        load_items(config.items, paths),
        config.on_item_error,
        code_of(config.python, paths),
    )


class PythonScorer(StatisticScorer):
    """The mean of what a function returns for each item.

    Args:
        name: In reports.
        metric: The function's full name.
        direction: Whether its numbers should go up or down.
        function: Model and items -> results, one for each item.
        items: All items.
        on_item_error: What becomes of the candidate when an item has no score.
        code: The files that the function needs: name -> hash.
    """

    def __init__(
        self,
        name: str,
        metric: str,
        direction: Direction,
        function: Callable[[TextModel, list[Any]], Any],
        items: Sequence[Any],
        on_item_error: OnItemError,
        code: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, metric, direction, len(items), MeanOfItems(statistics.fmean), list(items), code)
        self._function = function
        self._items = items
        self._on_item_error: OnItemError = on_item_error
        self._prepared = PreparedRequests()

    def score(self, model: LanguageModel, item_ids: Sequence[int]) -> ScoredItems:
        """What the function says of each item.

        Raises:
            ScoringError: An item has no score and the user does not allow it to be left out.
            TaskError: The function returns something else than results for items.
        """
        values: dict[int, float] = {}
        signals: dict[int, float] = {}
        failures: dict[int, str] = {}
        asked = TextModel(model, self._prepared)
        # Whatever the function did to the model before it raised.
        restore = getattr(model, "restore", lambda: None)
        for item, result in self._results(asked, self._checked(item_ids), restore).items():
            try:
                values[item], signal = read_result(result)
            except ValueError as error:
                failures[item] = str(error)
            else:
                if signal is not None:
                    signals[item] = signal
        return settle(self.name, values, signals, failures, self._on_item_error)

    def _results(self, model: TextModel, ids: list[int], restore: Callable[[], None]) -> dict[int, Any]:
        """Call the function on all items or, where it raises, on each alone, which tells whose fault it is."""
        # A file that is missing is the machine's too, where it may not be left out with its item.
        not_an_items = (*_NOT_AN_ITEMS, OSError) if self._on_item_error == "fail" else _NOT_AN_ITEMS
        try:
            return self._call(model, ids)
        except not_an_items:
            raise
        except Exception as error:  # the user's code can raise anything
            reason = one_line(error)
        results: dict[int, Any] = {}
        for item in ids:
            restore()
            try:
                results |= self._call(model, [item])
            except not_an_items:
                raise
            except Exception as error:
                results[item] = error
                if self._on_item_error == "fail":
                    break
        if not any(isinstance(result, Exception) for result in results.values()):
            raise ScoringError(f"task {self.name!r}: raised on all items together, though on none alone: {reason}")
        return results

    def _call(self, model: TextModel, ids: list[int]) -> dict[int, Any]:
        if not ids:
            return {}
        return by_place(
            self._function(model, [own_copy(self._items[item]) for item in ids]),
            ids,
            f"task {self.name!r}",
            self.metric,
        )


def by_place(results: Any, ids: Sequence[int], where: str, function: str) -> dict[int, Any]:
    """A function's results by item.

    Args:
        results: A list with one for each item, or a mapping from places in the list of items to them.
        ids: The items, in the order that the function was given them.
        where: What names it, for errors: `task 'mine'`.
        function: The function's name in errors.

    Raises:
        TaskError: They are neither.
    """
    if hasattr(results, "tolist"):  # an array or a tensor
        results = results.tolist()
    if isinstance(results, Mapping):
        places = range(len(ids))
        strange = [key for key in results if key not in places]
        if strange:
            raise TaskError(
                f"{where}: {function} returned a result for {strange[0]!r}; keys are places in the list of "
                f"items, here 0 to {len(ids) - 1}"
            )
        return {item: results.get(place) for place, item in enumerate(ids)}
    if not isinstance(results, list | tuple):
        raise TaskError(
            f"{where}: {function} returned {type(results).__name__}; return a list with a number for each item"
        )
    if len(results) != len(ids):
        raise TaskError(
            f"{where}: {function} returned {len(results)} result{'' if len(results) == 1 else 's'} for "
            f"{len(ids)} item{'' if len(ids) == 1 else 's'}; return one for each, "
            "or a mapping from places in the list of items"
        )
    return dict(zip(ids, results, strict=True))


def read_result(result: Any) -> tuple[float, float | None]:
    """An item's score and its signal, if it has one.

    Args:
        result: A number, or a mapping with `score` and, if it likes, `signal`.

    Raises:
        ValueError: It has no score. The text says why.
    """
    if isinstance(result, Exception):
        raise ValueError(one_line(result))
    if isinstance(result, Mapping):
        unknown = [key for key in result if key not in ("score", "signal")]
        if unknown or "score" not in result:
            raise ValueError(f"expected a number or {{score, signal}}, got a mapping with keys {', '.join(result)}")
        signal = result.get("signal")
        return _finite(result["score"], "score"), None if signal is None else _finite(signal, "signal")
    return _finite(result, "score"), None


def _finite(value: Any, what: str) -> float:
    if value is None:
        raise ValueError(f"no {what}: the function returned None")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    except OverflowError:  # a whole number
        raise ValueError(f"the {what} is larger than {LARGEST:g}") from None
    if isinstance(value, str | bytes) or not math.isfinite(number):
        raise ValueError(f"the {what} is {value!r}, not a finite number")
    if abs(number) > LARGEST:
        raise ValueError(f"the {what} is {number:g}, larger than {LARGEST:g}")
    return number


register(TaskKind("python", PythonTask, one_by_one(lambda config, paths, seed: load_python_scorer(config, paths))))
