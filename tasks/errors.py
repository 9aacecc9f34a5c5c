"""The exceptions of this package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class TaskError(ValueError):
    """Something in the task configuration, the task files or the data must be changed by the user.

    Attributes:
        problems: One sentence each: what, where, what was found, and the fix.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[TaskError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class ScoringError(RuntimeError):
    """This model could not be scored, for example because its logits are not finite.

    It is a fact about one candidate and not about the configuration: a search records the candidate as
    failed, with this message as the reason, and goes on.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean "..."?` for the closest known names, or an empty string.

    Args:
        name: What the user wrote.
        known: What would have been right.
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text that says anything, else the name of its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
