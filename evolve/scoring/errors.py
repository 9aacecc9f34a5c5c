"""The exceptions of this package."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake that a user can mend.

    Attributes:
        place: Keys and indices that lead to it in what was checked; empty for all of it.
        message: What was found, and how to put it right.
    """

    place: Place
    message: str

    def within(self, *outer: str | int) -> Problem:
        """The problem as part of a larger document, where `outer` is the place of what was checked."""
        return dataclasses.replace(self, place=(*outer, *self.place))

    def __str__(self) -> str:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.place)
        return f"{where.removeprefix('.')}: {self.message}" if where else self.message


class TaskError(ValueError):
    """Something in the task configuration, the task files or the data must be changed by the user.

    Args:
        problems: A text alone is a problem without a place.

    Attributes:
        problems: All that was found.
    """

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem((), found) if isinstance(found, str) else found for found in problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[TaskError], tuple[Problem, ...]]:
        return type(self), self.problems


class ScoringError(RuntimeError):
    """This model could not be scored, for example because its logits are not finite.

    It is a fact about one candidate and not about the configuration: a search records the candidate as
    failed, with this message as the reason, and goes on.
    """


class UnavailableError(ScoringError):
    """What scoring needs cannot be had at the moment: a fact about a service or the machine, not about the model.

    What failed for it is tried again, where a search has not built on it.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the closest known names, ` Did you mean "..."?`, where there are any.

    Args:
        name: What the user wrote.
        known: What would have been right.
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text that says anything, else the name of its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
