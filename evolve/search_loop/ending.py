"""When a search ends: what is spent, what is reached, and what will not get any better."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from threading import Event as Flag

from evolve.config.strategy import BudgetConfig
from evolve.search_loop.ledger import Ledger, better
from evolve.trials.events import StopReason
from evolve.trials.journal import Journal
from evolve.trials.trial import State, Trial

MIN_FAILURES_TO_STOP = 4  # candidates that failed, and none that did not
_LOST = "lost_batches"
REPEATS_TO_STOP = 100  # candidates in a row whose recipes were scored before


class SearchError(RuntimeError):
    """The search cannot go on."""


class Clock:
    """The time that a search takes, over all runs of its journal.

    Args:
        journal: keeps it.
        minutes: at most; None where time does not bound the search.
        stop: set from outside to stop softly.
        pauses: whether the search has come to where it is to pause.
    """

    def __init__(
        self, journal: Journal, minutes: float | None, stop: Flag, pauses: Callable[[], bool] = lambda: False
    ) -> None:
        self._journal, self._minutes, self._stop, self._pauses = journal, minutes, stop, pauses
        self._before = float(journal.noted("search_seconds", 0.0))
        self._started = time.monotonic()

    @property
    def seconds_here(self) -> float:
        """Of this run alone."""
        return time.monotonic() - self._started

    @property
    def seconds(self) -> float:
        """Of all runs."""
        return self._before + self.seconds_here

    def note(self) -> None:
        """Keep how long it has taken."""
        self._journal.note("search_seconds", self.seconds)

    def interrupted(self) -> StopReason | None:
        """Why nothing new may be begun, if so; once it is so it stays so."""
        if self._stop.is_set():
            return StopReason.INTERRUPTED
        if self._pauses():
            return StopReason.PAUSED
        over = self._minutes is not None and self.seconds >= 60 * self._minutes
        return StopReason.MINUTES if over else None

    def seconds_left(self, candidates: int | None, seconds_each: float) -> float | None:
        """Of the search, for so many more candidates at most; None where nothing bounds it."""
        bounds = [] if candidates is None else [candidates * seconds_each]
        if self._minutes is not None:
            bounds.append(max(60 * self._minutes - self.seconds, 0.0))
        return min(bounds, default=None)


class Course:
    """How candidates went, one after the other, and whether a search ends with them whatever the journal holds beyond.

    Args:
        budget: of the search.
        exhausts: whether the optimizer tries all there is, and ends by itself.

    Attributes:
        best: of those so far.
    """

    def __init__(self, budget: BudgetConfig, *, exhausts: bool) -> None:
        self._budget = budget
        self._plateau = budget.plateau if exhausts else budget.plateau_limit
        self.best: Trial | None = None
        self._since_best = 0
        self._repeats = 0  # in a row

    def follow(self, trials: Iterable[Trial]) -> StopReason | None:
        """Take the next candidates, and say why it ends with them, if so: target, plateau, or nothing new is asked."""
        for trial in trials:
            best = better(trial, self.best)
            self._since_best = 0 if best is not self.best else self._since_best + 1
            self._repeats = self._repeats + 1 if trial.measured.reused_items else 0
            self.best = best
        if self.best is None or self.best.objective is None:
            return None
        if self._budget.target is not None and self.best.objective >= self._budget.target:
            return StopReason.TARGET
        if self._plateau is not None and self._since_best >= self._plateau:
            return StopReason.PLATEAU
        # Repeats cost nothing, so that a budget of items alone would never end a search whose recipes are all scored.
        exhausted = self._repeats >= REPEATS_TO_STOP and self._budget.evaluations is None
        return StopReason.EXHAUSTED if exhausted else None


def refuse_hopeless(ledger: Ledger) -> None:
    """A search of which nothing can be scored ends early, and says why.

    Raises:
        SearchError: all of the first candidates failed.
    """
    if MIN_FAILURES_TO_STOP <= ledger.candidates_failed == ledger.candidates_done:
        raise SearchError(
            f"all {ledger.candidates_done} candidates failed, the last with: {ledger.latest_failure}. The same command "
            "tries them again, once that is mended"
        )


def refuse_lost(batch: Sequence[Trial], number: int, journal: Journal) -> None:
    """A batch that failed as a whole, for what nobody foresaw or for what is away, ends the run before it is told.

    A service that is down, or a GPU that another program fills, would take the rest of the budget. A batch ends a run
    once: what fails again when it goes on is told like any failure.

    Args:
        batch: all of it is scored.
        number: of the batch.
        journal: keeps which batches ended a run.

    Raises:
        SearchError: it ends it.
    """
    ended = journal.noted(_LOST, [])
    if number in ended or not all(trial.state is State.FAILED and trial.measured.unforeseen for trial in batch):
        return
    journal.note(_LOST, [*ended, number])
    raise SearchError(
        f"all {len(batch)} candidates of a batch failed, the last with: {batch[-1].measured.failure}. The same command "
        "tries them again, once that is mended"
    )
