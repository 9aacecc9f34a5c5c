"""What is wrong with what a user wrote, as data, and the one place where it becomes text.

The packages below this one raise errors of the same shape, which are taken here by that shape alone: importing theirs
would import their engines, which `evolve status` does without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

Place = tuple[str | int, ...]
"""Keys and indices that lead to a part of a document: `("models", 1, "weight")`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake that a user can mend.

    Attributes:
        place: where it is in what was checked; empty for all of it.
        message: what was found, and how to put it right.
        document: the file, or the option of a command line, that the place lies in; empty where only the caller
            knows it.
    """

    place: Place
    message: str
    document: str = ""

    def within(self, *outer: str | int) -> Problem:
        """The problem as part of a larger document, where `outer` is the place of what was checked."""
        if self.document and outer:  # a file of its own, which that place names
            return Problem(outer, str(self))
        return dataclasses.replace(self, place=(*outer, *self.place))

    def __str__(self) -> str:
        parts = (self.document, format_place(self.place), self.message)
        return printable(": ".join(part for part in parts if part)).rstrip().replace("\n", "\\n")


class ConfigError(ValueError):
    """A search, or a command line, that cannot be run.

    Args:
        problems: a text alone is a problem without a place.

    Attributes:
        problems: all that was found.
    """

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem((), found) if isinstance(found, str) else found for found in problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[Problem, ...]]:
        return type(self), self.problems


class AnyProblem(Protocol):
    """A problem of any package."""

    @property
    def place(self) -> Place: ...

    @property
    def message(self) -> str: ...


@runtime_checkable
class HasProblems(Protocol):
    """An error of any package that holds problems: ConfigError, MergeError, TaskError."""

    @property
    def problems(self) -> Sequence[AnyProblem]: ...


def problems_within(error: HasProblems, *outer: str | int) -> list[Problem]:
    """The problems of an error, as parts of a larger document.

    Args:
        error: what a checker raised.
        outer: the place of what it was given.
    """
    found = [Problem(one.place, one.message, getattr(one, "document", "")) for one in error.problems]
    return [problem.within(*outer) for problem in found]


@contextmanager
def placed(*outer: str | int) -> Iterator[None]:
    """An error with problems becomes one of ours, whose problems are parts of a larger document.

    Args:
        outer: the place of what is checked.
    """
    try:
        yield
    except ValueError as error:
        if not isinstance(error, HasProblems):
            raise
        raise ConfigError(*problems_within(error, *outer)) from error


@contextmanager
def noted(problems: list[Problem], *outer: str | int) -> Iterator[None]:
    """Checking goes on after an error, whose problems are added to a list.

    Args:
        problems: the list.
        outer: the place of what is checked.
    """
    try:
        yield
    except ValueError as error:
        if not isinstance(error, HasProblems):
            raise
        problems += problems_within(error, *outer)


def is_ours(error: BaseException) -> bool:
    """Whether it is one of a user's mistakes: these packages raise them as classes of their own. The rest are bugs."""
    return type(error).__module__.split(".")[0] in ("evolve", "merge_core")


def error_lines(error: BaseException) -> list[str]:
    """What a person is shown: a line for every problem, or for every line of an error that has none."""
    found = problems_within(error) if isinstance(error, HasProblems) else ()
    lines = [str(problem) for problem in found] or [printable(line) for line in str(error).splitlines()]
    return lines or [type(error).__name__]


def printable(text: str) -> str:
    """A text in which what would steer a terminal, or is no character at all, is written out; line ends stay.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def format_place(place: Place) -> str:
    """`("models", 1, "weight")` -> `models[1].weight`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text
