"""What becomes of a task when one of its items cannot be scored. It is never a 0."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from evolve.scoring.errors import ScoringError, first_line
from evolve.scoring.scorer import ScoredItems

OnItemError = Literal["fail", "skip"]

ON_ITEM_ERROR = (
    "What happens if an item has no score: `fail` fails the candidate, with the item and the reason; `skip` leaves the "
    "item out and records it. Candidates are then compared over different items, so use skip only for rare cases."
)

_OURS = Path(__file__).parent
_STANDARD_LIBRARY = Path(traceback.__file__).parent
_LOG = logging.getLogger(__name__)


def settle(
    label: str,
    values: Mapping[int, float],
    signals: Mapping[int, float],
    failures: Mapping[int, str],
    on_item_error: OnItemError,
) -> ScoredItems:
    """Keep what was scored, or fail the candidate.

    Args:
        label: The task's name.
        values: Of the items that have a score.
        signals: Of those that have one.
        failures: Item -> why it has no score.
        on_item_error: `fail` or `skip`.

    Raises:
        ScoringError: An item failed and none may, or all did.
    """
    if failures and (on_item_error == "fail" or not values):
        first = min(failures)
        others = len(failures) - 1
        more = f" ({others} more item{'' if others == 1 else 's'} failed)" if others else ""
        raise ScoringError(f"task {label!r}: item {first}: {failures[first]}{more}")
    if failures:
        _LOG.warning("task %r: %d items left out, such as item %d: %s", label, len(failures), *min(failures.items()))
    return ScoredItems(dict(values), dict(signals), dict(failures))


def one_line(error: BaseException) -> str:
    """An exception's type, the first line of its text, and the line of the user's file that raised it."""
    line, name = first_line(error), type(error).__name__
    said = name if line == name else f"{name}: {line}"
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_a_librarys(frame.filename)]
    return f"{said} ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else said


def _is_a_librarys(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(_OURS) or "site-packages" in path.parts or path.is_relative_to(_STANDARD_LIBRARY)
