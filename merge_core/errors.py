"""The one exception that stands for everything a user of the merge engine can cause."""

from __future__ import annotations

import dataclasses
import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from merge_core.bounds import NAME_CHARACTERS

Place = tuple[str | int, ...]
"""Keys and indices that lead to a part of a document: ``("models", 1, "weight")``."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake that a user can mend.

    Attributes:
        place: where it is in what was checked; empty for all of it.
        message: what was found, and how to put it right.
        document: the file, or the option of a command line, that the place lies in; empty where only the caller
            knows it.

    >>> str(Problem(("models", 1), "missing key model", "recipe.yml"))
    'recipe.yml: models[1]: missing key model'
    >>> str(Problem((1,), "missing key model").within("recipe", "models"))
    'recipe.models[1]: missing key model'
    """

    place: Place
    message: str
    document: str = ""

    def within(self, *outer: str | int) -> Problem:
        """The problem as part of a larger document, where ``outer`` is the place of what was checked."""
        if self.document and outer:  # a file of its own, which that place names
            return Problem(outer, str(self))
        return dataclasses.replace(self, place=(*outer, *self.place))

    def __str__(self) -> str:
        return ": ".join(part for part in (self.document, format_place(self.place), self.message) if part)


class MergeError(ValueError):
    """One or more mistakes in a recipe, a checkpoint or a request, each with its fix.

    Args:
        problems: a text alone is a problem without a place.

    Attributes:
        problems: all that was found.
    """

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem((), found) if isinstance(found, str) else found for found in problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[MergeError], tuple[Problem, ...]]:
        # The default would rebuild from the joined text and lose the split into problems.
        return type(self), self.problems


class CutShortError(MergeError):
    """A file of weights lost its end while it was read: nothing can be said of any merge that takes from it."""


def format_place(place: Place) -> str:
    """Write a place as people do.

    >>> format_place(("models", 1, "weight"))
    'models[1].weight'
    """
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def check_name(name: str) -> None:
    """Refuse what is no name: it would steer the terminals and break the paths that names come to.

    Raises:
        MergeError: control characters, halves of surrogate pairs, or no end. It does not say where: the caller knows.
    """
    if len(name) > NAME_CHARACTERS:
        raise MergeError(f'"{name[:40]}…" has {len(name)} characters, at most {NAME_CHARACTERS} make a name')
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name):
        raise MergeError(f"{name!r} has characters that no name has. Rename it")


def shown(value: object, most: int = 60) -> str:
    """A value as a message shows it, cut short: what is wrong with it may be its length."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        return "a number without end"
    return text if len(text) <= most else f"{text[:most]}…"


def first_line(error: BaseException) -> str:
    """The first line of an exception's text that says anything, else the name of its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Name the nearest known word, ``' Did you mean "density"?'``, or list the known words."""
    words = sorted(known)
    nearest = difflib.get_close_matches(str(word), words, n=1, cutoff=0.6)
    if nearest:
        return f' Did you mean "{nearest[0]}"?'
    return f" Known: {', '.join(words)}."


def and_more(names: Iterable[str], shown: int = 5) -> str:
    """Join names for an error message, cutting a long list short: ``a, b, c and 7 more``."""
    items = list(names)
    if len(items) <= shown:
        return ", ".join(items)
    return f"{', '.join(items[:shown])} and {len(items) - shown} more"
