"""The one exception that stands for everything a user of the merge engine can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MergeError(ValueError):
    """One or more mistakes in a recipe, a checkpoint or a request, each with its fix.

    Attributes:
        problems: one line per mistake: where it is, what was found, how to put it right.
    """

    def __init__(self, *problems: str) -> None:
        self.problems: tuple[str, ...] = problems
        super().__init__("\n".join(problems))

    def __reduce__(self) -> tuple[type[MergeError], tuple[str, ...]]:
        # The default would rebuild from the joined text and lose the split into problems.
        return type(self), self.problems


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``' Did you mean "density"?'`` for the nearest known word, or the list of known words."""
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
