"""What a failure says of a candidate: that it cannot be scored, or that the machine could not."""

from __future__ import annotations

import traceback
from pathlib import Path

from evolve.scoring import ScoringError, UnavailableError, first_line
from evolve.scoring.foreign_code import EscapeError, TookTooLongError


def is_foreseen(error: Exception) -> bool:
    """Whether an error is one that says what is wrong with a candidate; any other may be the machine's."""
    if isinstance(error, UnavailableError):
        return False
    return isinstance(error, ValueError | ScoringError | EscapeError | TookTooLongError)


def reason_of(error: Exception) -> str:
    """One line: the error's own for what is foreseen, with the place for what is not."""
    text = first_line(error)
    if is_foreseen(error) or isinstance(error, UnavailableError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"
