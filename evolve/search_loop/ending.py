"""When a search ends: what is spent, what is reached, and what will not get any better."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Event as Flag

from evolve.config.strategy import BudgetConfig
from evolve.search_loop.ledger import Ledger
from evolve.trials.events import StopReason
from evolve.trials.journal import Journal
from evolve.trials.trial import State, Trial, best_of

MIN_FAILURES_TO_STOP = 4  # candidates that failed, and none that did not
_LOST = "lost_until"  # so many candidates had been asked for
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
            best = best_of((self.best, trial))
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
            f"all {ledger.candidates_done} candidates failed, the last with: {ledger.latest_failure}. Fix "
            "that and run the same command again, which retries them"
        )


def is_lost(trial: Trial) -> bool:
    """Whether it failed for what nobody foresaw or for what is away, and so perhaps through no fault of its own."""
    return trial.state is State.FAILED and trial.measured.unforeseen


def may_all_be_lost(ledger: Ledger, asked: int, together: int) -> bool:
    """Whether only what is still being scored can tell if the workers are lost; arguments as of `refuse_lost`."""
    latest = _latest(ledger, asked, together)
    running = [trial for trial in latest if trial.state is State.RUNNING]
    return bool(running) and all(trial.state is State.RUNNING or is_lost(trial) for trial in latest)


def refuse_lost(ledger: Ledger, asked: int, together: int, journal: Journal) -> None:
    """Candidates that are lost one after the other end the run, before the optimizer builds on them.

    A service that is down, or a GPU that another program fills, would take the rest of the budget. No candidate ends a
    run twice: what is lost again when it goes on is told like any failure.

    Args:
        ledger: of the search.
        asked: how many candidates the optimizer was asked for.
        together: how many of them are scored before it is told of the first: a batch, or the lag of a steady state.
        journal: keeps which of them ended a run.

    Raises:
        SearchError: the last ones are lost, all that are untold among them.
    """
    latest = _latest(ledger, asked, together)
    if not latest or asked - len(latest) < journal.noted(_LOST, 0) or not all(map(is_lost, latest)):
        return
    journal.note(_LOST, asked)
    untold = min(together, len(latest))  # the optimizer has built on those before
    again = "them" if untold == len(latest) else f"the last {untold}" if untold > 1 else "the last"
    raise SearchError(
        f"{len(latest)} candidates failed one after the other, the last with: {latest[-1].measured.failure}. Fix "
        f"that and run the same command again, which retries {again}"
    )


def _latest(ledger: Ledger, asked: int, together: int) -> list[Trial]:
    """The last candidates asked for, as many as are not all to blame themselves; none where there are too few."""
    count = max(together, MIN_FAILURES_TO_STOP)
    found = [ledger.asked(place) for place in range(asked - count, asked)] if asked >= count else []
    return [trial for trial in found if trial is not None]
