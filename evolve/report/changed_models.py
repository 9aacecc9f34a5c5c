"""Says once of every task and constraint that its code changed the live model, and of an engine that it lost it."""

from __future__ import annotations

import sys

from evolve.trials.events import Event, TrialFinished, Watcher


class ChangedModels:
    """A watcher that warns, and hands every event on.

    Args:
        watch: is told everything.
    """

    def __init__(self, watch: Watcher) -> None:
        self._watch = watch
        self._told: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Warn of what is new."""
        if isinstance(event, TrialFinished):
            for who, what in event.trial.measured.restored.items():
                if who not in self._told:
                    self._told.add(who)
                    print(
                        f"warning: {who} changed the live model ({what}). It was built again before anything else was "
                        "scored; leave the model as it is, or undo what is done, and candidates take less time",
                        file=sys.stderr,
                    )
            if (restart := event.trial.measured.restart) is not None and restart not in self._told:
                self._told.add(restart)
                print(f"warning: {restart}", file=sys.stderr)
        self._watch(event)
