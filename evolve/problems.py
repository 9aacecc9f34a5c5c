"""What is wrong with what a user wrote, as data, and the one place where it becomes text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from merge_core import MergeError, Problem
from tasks import TaskError


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


def problems_within(error: MergeError | TaskError | ConfigError, *outer: str | int) -> list[Problem]:
    """The problems of an error of any package, as parts of a larger document.

    Args:
        error: what a checker raised.
        outer: the place of what it was given.
    """
    found = [
        problem if isinstance(problem, Problem) else Problem(problem.place, problem.message)
        for problem in error.problems
    ]
    return [problem.within(*outer) for problem in found]


@contextmanager
def noted(problems: list[Problem], *outer: str | int) -> Iterator[None]:
    """Checking goes on after an error, whose problems are added to a list.

    Args:
        problems: the list.
        outer: the place of what is checked.
    """
    try:
        yield
    except (MergeError, TaskError, ConfigError) as error:
        problems += problems_within(error, *outer)


def error_lines(error: BaseException) -> list[str]:
    """What a person is shown: a line for every problem, or for every line of an error that has none."""
    problems = error.problems if isinstance(error, MergeError | TaskError | ConfigError) else ()
    return [str(problem) for problem in problems] or str(error).splitlines() or [type(error).__name__]
