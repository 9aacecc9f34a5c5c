"""Tells callbacks the events of a search, and keeps their errors from it and from each other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Self

from evolve.problems import printable
from evolve.scoring.foreign_code import without_escape
from evolve.trackers.callback import Callback
from evolve.trials.events import Event, RunFinished, RunStarted, TrialFinished, Watcher


class CallbackWatcher:
    """Tells a watcher every event, and callbacks theirs; a context manager, which closes the callbacks at its end.

    Args:
        watch: what shows the search; told first.
        callbacks: the others. One that raises an error is told nothing further, but is closed.
    """

    def __init__(self, watch: Watcher, callbacks: Sequence[Callback]) -> None:
        self._watch = watch
        self._callbacks = list(callbacks)
        self._listening = list(callbacks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for callback in self._callbacks:
            _failed(callback, lambda one: one.close(), "It was told the end; the results are kept")

    def __call__(self, event: Event) -> None:
        """Tell all of them."""
        self._watch(event)
        match event:
            case RunStarted():
                self._tell(lambda callback: callback.on_start(event))
            case TrialFinished():
                self._tell(lambda callback: callback.on_trial(event))
            case RunFinished():
                self._tell(lambda callback: callback.on_finish(event))

    def _tell(self, call: Callable[[Callback], None]) -> None:
        for callback in list(self._listening):
            if _failed(callback, call, "It is told nothing further; the search goes on"):
                self._listening.remove(callback)


def _failed(callback: Callback, call: Callable[[Callback], None], consequence: str) -> bool:
    """Call a callback; whether it raised an error, which is said."""
    try:
        with without_escape():
            call(callback)
    except Exception as error:  # code that is not ours can raise anything, and a search outlives it
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        line = printable(f"warning: callback {type(callback).__name__}: {reason}. {consequence}")
        print(line.replace("\n", " "), file=sys.stderr)
        return True
    return False
