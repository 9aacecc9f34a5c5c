"""`evolve.Callback`: told of a search as it goes, without any influence on it."""

from __future__ import annotations

from evolve.trials.events import RunFinished, RunStarted, TrialFinished
from evolve.trials.trial import Trial


class Callback:
    """What a search tells; override what is of interest.

    An error in a callback is said once, and the callback is told nothing further. The search goes on.

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
    """The numbers that a tracker draws against trials: of the trial, of the best so far, and of what it is to beat."""
    return {
        **({} if event.trial.is_reference else _scores("", event.trial)),
        **_scores("best/", event.best),
        **_scores("best_parent/", event.best_parent),
        **_scores("uniform/", event.uniform),
        "candidates": float(event.candidates_done),
        "seconds": event.trial.measured.total_seconds,
    }


def _scores(group: str, trial: Trial | None) -> dict[str, float]:
    if trial is None or trial.objective is None:
        return {}
    return {f"{group}objective": trial.objective} | {
        f"{group}tasks/{name}": score for name, score in trial.task_scores.items()
    }
