"""What a person or a script sees of a running search: a live display, plain lines, or JSON lines.

Three watchers behind `make_watcher`. Progress goes to stderr; the final summary, being the result, to stdout.
With JSON, stdout carries events and nothing else.

A watcher never influences the search: a closed pipe or an unprintable name costs the
reader text, not the run.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Literal, Protocol, Self, TextIO, get_args

from rich.console import Console

from evolve.report.event_record import event_line
from evolve.report.formatting import (
    finish_text,
    format_duration,
    format_score,
    outside,
    plan_line,
    reading_text,
    single_line,
    stop_text,
    stopping_text,
    write_line,
)
from evolve.report.live_display import RichWatcher
from evolve.report.notebook_display import NotebookWatcher
from evolve.trials.events import (
    Event,
    FinalistScored,
    GradientStepped,
    ModelsRead,
    PointLookedAt,
    Preparing,
    RunFinished,
    RunStarted,
    SearchStopped,
    StopAsked,
    TrialFinished,
    WorkBegun,
)
from evolve.trials.trial import Kind, State

Mode = Literal["auto", "rich", "plain", "json", "quiet", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)

STATUS_SECONDS = 10.0  # plain: never more often than this
STATUS_FRACTION = 0.05  # plain: once per this share of the budget ...
STATUS_SILENCE_SECONDS = 60.0  # ... or after this long, so that a slow search does not look dead


def make_watcher(mode: Mode = "auto") -> ProgressWatcher:
    """The watcher for `mode`; use it as a context manager around the search.

    Args:
        mode: "rich" is a live display on stderr, or in the cell of a notebook, "plain" a few lines on stderr, "json"
            one object per event on stdout, "quiet" only how it ended, and "none" nothing. "auto" is "rich" in a
            notebook and when stderr is a terminal that can move its cursor, else "plain".

    Raises:
        ValueError: for any other mode.
    """
    if mode not in MODES:
        raise ValueError(f'progress: unknown mode "{mode}". Use one of: {", ".join(MODES)}')
    if mode == "json":
        return JsonWatcher()
    if mode == "quiet":
        return QuietWatcher()
    if mode == "none":
        return NoWatcher()
    console = Console(stderr=True)
    if console.is_jupyter and mode != "plain":
        return NotebookWatcher()
    # Asked of the stream, since rich calls any stream a terminal where FORCE_COLOR is set, as it is in many CIs.
    movable = sys.stderr.isatty() and not console.is_dumb_terminal
    if mode == "rich" or (mode == "auto" and movable):
        return RichWatcher(console)
    return PlainWatcher()


def mode_of(*, json_events: bool, quiet: bool) -> Mode:
    """The mode that options of the command line ask for; `json_events` before `quiet`."""
    return "json" if json_events else "quiet" if quiet else "auto"


class ProgressWatcher(Protocol):
    """A watcher that may hold the terminal, and gives it back when left, however the search ends."""

    def __call__(self, event: Event) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class PlainWatcher:
    """Lines for a log file: references, new bests and failures always, a status line now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._status_at = clock()
        self._status_done = 0
        self._failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def __call__(self, event: Event) -> None:
        match event:
            case Preparing():
                write_line(sys.stderr, single_line(event.what))
            case RunStarted():
                self._status_at = self._clock()
                write_line(sys.stderr, plan_line(event))
            case ModelsRead():
                self._tell_what_is_read(event)
            case GradientStepped() | WorkBegun():
                pass  # every few of them something is told that was found
            case PointLookedAt():
                is_best = ", the best so far" if event.gained else ""
                score = f"{format_score(event.objective)} on {event.items} items{is_best}"
                replayed = " (replayed)" if event.replayed else ""
                write_line(sys.stderr, f"gradient{replayed}: {single_line(event.label)}: {score}")
            case TrialFinished():
                for line in self._trial_lines(event):
                    write_line(sys.stderr, line)
            case StopAsked():
                write_line(sys.stderr, stopping_text(event))
            case SearchStopped():
                plural = "" if event.candidates_done == 1 else "s"
                write_line(sys.stderr, f"stopped after {event.candidates_done} candidate{plural}: {stop_text(event)}")
            case FinalistScored():
                score = format_score(event.held_out_score)
                label = single_line(event.trial.label)
                write_line(sys.stderr, f"held-out {event.done}/{event.total}: {label}: objective {score}")
            case RunFinished():
                write_line(sys.stdout, finish_text(event))

    def _tell_what_is_read(self, event: ModelsRead) -> None:
        if self._clock() - self._status_at >= STATUS_SECONDS:
            self._status_at = self._clock()
            write_line(sys.stderr, reading_text(event))

    def _trial_lines(self, event: TrialFinished) -> list[str]:
        trial = event.trial
        if trial.state is State.FAILED:
            self._failures += 1
            reason = single_line(trial.measured.failure or "no reason recorded")
            return [f"{_count(event)} {single_line(trial.label)} failed: {reason}"]
        scores = f"objective {format_score(trial.objective)}"
        if trial.state is State.INFEASIBLE:
            scores = f"infeasible, {outside(trial.measured)}"
        if trial.task_scores:
            scores += "; " + ", ".join(
                f"{single_line(name)} {format_score(score)}" for name, score in trial.task_scores.items()
            )
        if trial.is_reference:
            name = single_line(trial.label)
            name = name if trial.kind is Kind.UNIFORM else f"parent {name}"
            return [f"{name}: {scores}; {trial.measured.total_seconds:.1f} s"]
        if event.best is not None and event.best.number == trial.number:
            return [f"{_count(event)} new best, {single_line(trial.label)}: {scores}{_gains(event)}"]
        return self._status_lines(event)

    def _status_lines(self, event: TrialFinished) -> list[str]:
        silence = self._clock() - self._status_at
        fresh = event.candidates_done - self._status_done
        share_done = event.evaluation_budget and fresh >= STATUS_FRACTION * event.evaluation_budget
        if silence < STATUS_SECONDS or not (share_done or silence >= STATUS_SILENCE_SECONDS):
            return []
        self._status_at, self._status_done = self._clock(), event.candidates_done
        parts = [f"{_count(event)} best {format_score(event.best.objective if event.best else None)}"]
        if event.best is not None:
            parts[0] += f" ({single_line(event.best.label)})"
        parts.append(f"{event.seconds_per_evaluation:.1f} s each")
        if event.seconds_left is not None:
            parts.append(f"{format_duration(event.seconds_left)} left")
        if self._failures:
            parts.append(f"{self._failures} failed")
        return [", ".join(parts)]


class QuietWatcher(PlainWatcher):
    """How the search ended, and that it was asked to stop; nothing on the way."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunFinished | StopAsked):
            super().__call__(event)


class NoWatcher(PlainWatcher):
    """Nothing: whoever asked for it has the result in hand."""

    def __call__(self, event: Event) -> None:
        """Show nothing."""


class JsonWatcher:
    """One JSON object per event and line on stdout: {"event": "trial_finished", "trial": {...}, ...}.

    Whatever else is printed between entering and leaving goes to stderr, so that every line of stdout parses.
    Scores that are not finite are null. Scores of single items are left out; the journal has them.
    """

    def __init__(self) -> None:
        self._stdout = sys.stdout
        self._redirection: contextlib.redirect_stdout[TextIO] | None = None

    def __enter__(self) -> Self:
        self._redirection = contextlib.redirect_stdout(sys.stderr)
        self._redirection.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Give stdout back to everyone."""
        if self._redirection is not None:
            self._redirection.__exit__(None, None, None)
            self._redirection = None

    def __call__(self, event: Event) -> None:
        write_line(self._stdout, event_line(event))


def _count(event: TrialFinished) -> str:
    budget = "" if event.evaluation_budget is None else f"/{event.evaluation_budget}"
    return f"[{event.candidates_done}{budget}]"


def _gains(event: TrialFinished) -> str:
    """ "; +0.2000 over best parent addition, +0.1000 over uniform", for what is known."""
    gains = []
    for name, reference in (("best parent ", event.best_parent), ("", event.uniform)):
        if reference is not None and reference.objective is not None and event.trial.objective is not None:
            gain = event.trial.objective - reference.objective
            gains.append(f"{format_score(gain, signed=True)} over {name}{single_line(reference.label)}")
    return "; " + ", ".join(gains) if gains else ""
