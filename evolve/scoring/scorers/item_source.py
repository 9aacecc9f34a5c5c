"""Items that a user brings: from a file, from a function, or only their number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from evolve.scoring.errors import Problem, TaskError, first_line
from evolve.scoring.foreign_code import without_escape
from evolve.scoring.scorers.user_files import SearchPaths, read_text
from evolve.scoring.scorers.user_functions import FUNCTION_PATTERN, check_call, load_function

MOST_ITEMS = 1_000_000  # where a file only has to say their number


class ItemsFunction(BaseModel):
    """A Python function that returns the items as a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str = Field(
        pattern=FUNCTION_PATTERN, description="`package.module:function`; must return the same list every time."
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="Passed to the function by name.")


def _form(source: Any) -> str | None:
    if isinstance(source, int) and not isinstance(source, bool):
        return "number of items"
    if isinstance(source, Mapping | ItemsFunction):
        return "function of items"
    return "file of items" if isinstance(source, str) else None


ItemSource = Annotated[
    Annotated[str, Tag("file of items"), Field(min_length=1)]
    | Annotated[int, Tag("number of items"), Field(ge=1, le=MOST_ITEMS)]
    | Annotated[ItemsFunction, Tag("function of items")],
    Discriminator(
        _form,
        custom_error_type="item_source",
        custom_error_message="expected a file, a number, or {python: package.module:function}",
    ),
]


def load_items(source: str | int | ItemsFunction, paths: SearchPaths) -> list[Any]:
    """The items.

    Args:
        source: A .jsonl, .json, .csv or .txt file, the function that makes them, or how many there are, in which
            case they are the numbers from 0.
        paths: Where the file or the module may be.

    Raises:
        TaskError: There are none, or they cannot be read; the place begins with `items`.
    """
    if isinstance(source, int):
        return list(range(source))
    try:
        items = _made(source, paths) if isinstance(source, ItemsFunction) else _read(paths.file(source))
    except TaskError as error:
        raise TaskError(*(problem.within("items") for problem in error.problems)) from error
    if not items:
        origin = source.python if isinstance(source, ItemsFunction) else source
        raise TaskError(Problem(("items",), f"{origin} holds no item"))
    return items


def own_copy(item: Any) -> Any:
    """An item whose lists and mappings may be changed, which would change what the next model is scored on."""
    if type(item) is dict:
        return {key: own_copy(value) for key, value in item.items()}
    return [own_copy(value) for value in item] if type(item) is list else item


def _read(path: Path) -> list[Any]:
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise TaskError(f"{path.name}: expected a file {', '.join(_READERS)}")
    return reader(read_text(path).removeprefix("\ufeff"), path)


def _made(source: ItemsFunction, paths: SearchPaths) -> list[Any]:
    function = load_function(source.python, paths)
    check_call(function, source.python, 0, source.arguments, "items(**arguments)")
    try:
        with without_escape():
            items = function(**source.arguments)
    except Exception as error:  # the user's code can raise anything
        raise TaskError(f"{source.python} raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(items, list | tuple):
        raise TaskError(f"{source.python} returned {type(items).__name__}; return a list")
    return list(items)


def _json_lines(text: str, path: Path) -> list[Any]:
    items = []
    # Not splitlines(): JSON strings may hold U+2028, which is no line end here.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            items.append(_json(line, f"{path.name}:{number}"))
    return items


def _json_list(text: str, path: Path) -> list[Any]:
    items = _json(text, path.name)
    if not isinstance(items, list):
        raise TaskError(f"{path.name}: expected a list, found {type(items).__name__}")
    return items


def _json(text: str, origin: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TaskError(f"{origin} is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists without end
        raise TaskError(f"{origin} cannot be read: {first_line(error)}") from error


def _table(text: str, path: Path) -> list[Any]:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise TaskError(f"{path.name} is no table of comma-separated values: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise TaskError(f"{path.name}: row {number} has not as many cells as the header")
    return rows


def _lines(text: str, path: Path) -> list[Any]:
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


_READERS: dict[str, Callable[[str, Path], list[Any]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": _table,
    ".txt": _lines,
}
