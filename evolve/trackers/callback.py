"""`evolve.Callback`: told of a search as it goes, without any influence on it."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable

from evolve.trials.events import RunFinished, RunStarted, TrialFinished
from evolve.trials.trial import Trial


class Callback:
    """What a search tells; override what is of interest.

    An error in a callback is said once, and of what comes after it the callback is told the end alone. The search
    goes on.

    Example:
        >>> class Shout(Callback):
        ...     def on_trial(self, event):
        ...         if event.best is event.trial:
        ...             print(f"{event.trial.label}: {event.trial.objective}!")
    """

    def on_start(self, event: RunStarted) -> None:
        """The search begins, or goes on: `event.output`, `.task_names`, `.genes`, `.optimizer`, `.resumed`."""

    def on_trial(self, event: TrialFinished) -> None:
        """A parent, the uniform merge or a candidate was scored, or failed: `event.trial`, and `event.best` so far."""

    def on_finish(self, event: RunFinished) -> None:
        """Everything is on disk: `event.best`, `.files` by name ("recipe", "model", "card", ...), `.summary`."""

    def close(self) -> None:
        """The search has ended, finished or not; told last, and always."""


def metrics_of(event: TrialFinished) -> dict[str, float]:
    """The numbers that a tracker draws against trials: of the trial, of the best so far, and of what it is to beat.

    Names are plain ones: some trackers refuse others.
    """
    return {
        **({} if event.trial.is_reference else _scores("", event.trial)),
        **_scores("best/", event.best),
        **_scores("best_parent/", event.best_parent),
        **_scores("uniform/", event.uniform),
        "candidates": float(event.candidates_done),
        "seconds": event.trial.measured.total_seconds,
    }


def plain_name(name: str) -> str:
    """A name that every tracker takes: letters of ASCII, digits and `_-.`, with an underscore for anything else.

    Example:
        >>> plain_name("grüße (5-shot)")
        'gru_e__5-shot_'
    """
    letters = [letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter)]
    return re.sub(r"[^\w.-]", "_", "".join(letters), flags=re.ASCII)


def _scores(group: str, trial: Trial | None) -> dict[str, float]:
    if trial is None or trial.objective is None:
        return {}
    names = _plain_names(trial.task_scores)
    return {f"{group}objective": trial.objective} | {
        f"{group}tasks/{names[name]}": score for name, score in trial.task_scores.items()
    }


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> its plain one, with a number where an earlier one has that."""
    found: dict[str, str] = {}
    for name in names:
        plain, taken = plain_name(name), set(found.values())
        others = (f"{plain}_{number}" for number in itertools.count(2))
        found[name] = plain if plain not in taken else next(other for other in others if other not in taken)
    return found
