"""The live display of a running search, for a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evolve.report.formatting import (
    finish_text,
    format_duration,
    format_score,
    plan_line,
    reading_text,
    shortened,
    single_line,
    stop_text,
    stopping_text,
    write_line,
)
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
from evolve.trials.trial import Kind, State, Trial

LEADERBOARD_LENGTH = 5
_NARROWEST_LABEL, _WIDEST_LABEL = 30, 48
_OBJECTIVE_WIDTH = 9
_WIDEST_TASK = 14


class RichWatcher:
    """A live display: bar, leaderboard, the best against best parent and uniform, the last failure.

    Args:
        console: where to draw.
        clock: monotonic seconds; the time left counts down between events.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        # The display's own thread reads what follows while events replace it; a frame shows one event's values.
        self._frame = Lock()
        self._preparing: Preparing | None = None
        self._plan: RunStarted | None = None
        self._read: ModelsRead | None = None
        self._begun: Mapping[str, float] = {}  # what workers are at -> when it was begun
        self._last: TrialFinished | None = None
        self._last_at = clock()
        self._done = 0
        self._best_parent: Trial | None = None
        self._uniform: Trial | None = None
        self._leaders: tuple[Trial, ...] = ()
        self._failures = 0
        self._failed: Trial | None = None
        self._stopping: StopAsked | None = None
        self._stopped: SearchStopped | None = None
        self._finalist: FinalistScored | None = None
        self._way: GradientStepped | None = None
        self._looked: PointLookedAt | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        match event:
            case Preparing():
                self._preparing = event
                self._prepare()
            case ModelsRead():
                self._read = event
            case WorkBegun():
                now = self._clock()
                self._begun = {label: self._begun.get(label, now) for label in event.labels}
            case RunStarted():
                self._plan = event
                self._resume(event.resumed)
                self._open()
            case GradientStepped() | PointLookedAt():
                with self._frame:
                    self._way = event if isinstance(event, GradientStepped) else self._way
                    self._looked = event if isinstance(event, PointLookedAt) else self._looked
            case TrialFinished():
                known = (*self._leaders, event.trial, event.best, event.best_parent, event.uniform)
                with self._frame:
                    self._begun = {label: at for label, at in self._begun.items() if label != event.trial.label}
                    self._last, self._last_at = event, self._clock()
                    self._done = event.candidates_done
                    self._best_parent, self._uniform = event.best_parent, event.uniform
                    self._leaders = _leaders(known)
                    if event.trial.state is State.FAILED:
                        self._failures, self._failed = self._failures + 1, event.trial
            case StopAsked():
                self._stopping = event
            case SearchStopped():
                self._stopped = event
            case FinalistScored():
                self._finalist = event
            case RunFinished():
                self.close()
                write_line(sys.stdout, finish_text(event))

    def _resume(self, trials: Sequence[Trial]) -> None:
        """Show what earlier processes of the run found."""
        self._done = sum(trial.kind is Kind.CANDIDATE for trial in trials)
        self._leaders = _leaders(trials)
        self._best_parent = next(iter(_leaders([trial for trial in trials if trial.kind is Kind.PARENT])), None)
        self._uniform = next((trial for trial in trials if trial.kind is Kind.UNIFORM), None)
        failed = [trial for trial in trials if trial.state is State.FAILED]
        self._failures, self._failed = len(failed), failed[-1] if failed else None

    def _prepare(self) -> None:
        """Lines above the display to come, between which the hub's bars have their place."""
        if self._preparing is not None:
            self._console.print(Text(single_line(self._preparing.what), style="dim"))

    def _open(self) -> None:
        # Stray prints are drawn above the display, except where stdout is a file: they belong in it.
        self._live = Live(
            get_renderable=self.render,
            console=self._console,
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start()

    def close(self) -> None:
        """Leave the display as it last was and give the terminal back."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def render(self) -> RenderableType:
        """The display as it is now."""
        with self._frame:
            return self._rows()

    def _rows(self) -> Group:
        rows: list[RenderableType] = []
        if self._plan is not None:
            rows.append(Text(plan_line(self._plan), style="dim", no_wrap=True, overflow="ellipsis"))
            rows.append(self._bar())
        rows.append(self._status())
        if self._begun and self._stopping is None and self._stopped is None:
            rows.append(self._work())
        if self._leaders:
            rows.append(self._scores())
        if self._failed is not None:
            failure = f"{single_line(self._failed.label)} failed: {single_line(self._failed.measured.failure or '')}"
            rows.append(Text(failure, style="red", no_wrap=True, overflow="ellipsis"))
        return Group(*rows)

    def _bar(self) -> RenderableType:
        done = self._done
        budget = self._last.evaluation_budget if self._last else self._plan and self._plan.evaluation_budget
        if self._finalist is not None:
            done, budget, what = self._finalist.done, self._finalist.total, "held-out"
        else:
            what = "candidates" if budget or done != 1 else "candidate"
        count = Text(f"{done}/{budget} {what}" if budget else f"{done} {what}", style="bold")
        grid = Table.grid(padding=(0, 2), expand=bool(budget))
        if budget:
            grid.add_column(ratio=1)
            grid.add_column(no_wrap=True)
            grid.add_row(ProgressBar(total=budget, completed=done), count)
        else:
            grid.add_row(count)
        return grid

    def _status(self) -> Text:
        parts: list[tuple[str, str]] = []
        if self._finalist is not None:
            score = format_score(self._finalist.held_out_score)
            parts.append((f"{single_line(self._finalist.trial.label)} scored {score} on held-out items", ""))
        elif self._stopped is not None:
            parts.append((f"stopped: {stop_text(self._stopped)}", "yellow"))
        elif self._stopping is not None:
            parts.append((stopping_text(self._stopping), "yellow"))
        elif self._last is None and (self._way is not None or self._looked is not None):
            if self._way is not None:
                parts.append((f"gradient: step {self._way.step} from {single_line(self._way.start)}", ""))
                parts.append((f"right answers have probability {self._way.probability:.2f}", "cyan"))
            if self._looked is not None:
                parts.append((f"best point {format_score(self._looked.best)} on {self._looked.items} items", "green"))
        elif self._last is None:
            if self._read is not None and self._read.done < self._read.total:
                parts.append((reading_text(self._read), "yellow"))
            elif self._plan is None and self._preparing is not None:
                parts.append((single_line(self._preparing.what), "yellow"))
            elif self._plan is not None and not self._plan.resumed:
                parts.append(("parents and uniform merge are scored first", "yellow"))
        else:
            parts.append((f"{self._last.seconds_per_evaluation:.1f} s each", ""))
            if self._last.seconds_left is not None:
                left = max(0.0, self._last.seconds_left - (self._clock() - self._last_at))
                parts.append((f"{format_duration(left)} left", "cyan"))
        if self._failures:
            parts.append((f"{self._failures} failed", "red"))
        separated = [piece for part in parts for piece in ((" · ", "dim"), part)][1:]
        return Text.assemble(*separated, no_wrap=True, overflow="ellipsis")

    def _work(self) -> Text:
        """ "at work: candidate 7 (12 s), candidate 8 (3 s)"."""
        now = self._clock()
        work = [f"{single_line(label)} ({format_duration(now - at)})" for label, at in self._begun.items()]
        return Text(f"at work: {', '.join(work)}", style="dim", no_wrap=True, overflow="ellipsis")

    def _scores(self) -> Table:
        best = self._leaders[0]
        task_names = self._plan.task_names if self._plan else list(best.task_scores)
        shown, hidden, label_width = _fitting(task_names, self._console.width)
        table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
        table.add_column(Text(f"top {LEADERBOARD_LENGTH}"), width=label_width, no_wrap=True)
        table.add_column(Text("objective"), justify="right", no_wrap=True, width=_OBJECTIVE_WIDTH)
        for name in shown:
            table.add_column(
                Text(single_line(name)),
                justify="right",
                no_wrap=True,
                width=_task_width(name),
                overflow="ellipsis",
            )
        if hidden:
            table.add_column(Text(f"+{hidden} more"), no_wrap=True)

        for rank, trial in enumerate(self._leaders, start=1):
            table.add_row(
                _label(f"{rank} ", trial, label_width),
                *_cells(trial, shown),
                style="bold" if rank == 1 else "dim" if trial.is_reference else "",
            )
        for name, reference in (("best parent", self._best_parent), ("uniform", self._uniform)):
            if reference is None or reference.objective is None:
                continue
            title = "best parent " if reference.kind is Kind.PARENT else ""
            table.add_section()
            table.add_row(_label(title, reference, label_width), *_cells(reference, shown), style="dim")
            table.add_row(Text(f"  best over {name}"), *self._deltas(best, reference, shown))
        return table

    def _deltas(self, best: Trial, reference: Trial, task_names: Sequence[str]) -> list[Text]:
        pairs = [(best.objective, reference.objective, False)]
        minimized = self._plan.minimized_tasks if self._plan else ()
        for name in task_names:
            pair = best.task_scores.get(name), reference.task_scores.get(name), name in minimized
            pairs.append(pair)
        return [_delta(ours, theirs, lower_is_better) for ours, theirs, lower_is_better in pairs]


def _leaders(trials: Sequence[Trial | None]) -> tuple[Trial, ...]:
    scored = {trial.number: trial for trial in trials if trial is not None and trial.objective is not None}
    ranked = sorted(scored.values(), key=lambda trial: (-(trial.objective or 0.0), trial.number))
    return tuple(ranked[:LEADERBOARD_LENGTH])


def _task_width(name: str) -> int:
    return min(max(len(name), 8), _WIDEST_TASK)


def _fitting(task_names: Sequence[str], width: int) -> tuple[list[str], int, int]:
    """The first tasks whose columns fit in `width`, how many do not, and the width left for labels."""
    room = width - _OBJECTIVE_WIDTH - 2
    shown: list[str] = []
    for index, name in enumerate(task_names):
        after = room - _task_width(name) - 1
        room_for_note = 0 if index == len(task_names) - 1 else 9
        if after - room_for_note < _NARROWEST_LABEL:
            break
        shown.append(name)
        room = after
    hidden = len(task_names) - len(shown)
    return shown, hidden, max(_NARROWEST_LABEL, min(room - (9 if hidden else 0), _WIDEST_LABEL))


def _label(prefix: str, trial: Trial, width: int) -> Text:
    """Prefix and label in one column; a long reference loses its beginning, since its end tells it apart."""
    return Text(prefix + shortened(single_line(trial.label), width - len(prefix)))


def _cells(trial: Trial, task_names: Sequence[str]) -> list[Text]:
    scores = [trial.objective, *(trial.task_scores.get(name) for name in task_names)]
    return [Text(format_score(score)) for score in scores]


def _delta(ours: float | None, theirs: float | None, lower_is_better: bool) -> Text:
    if ours is None or theirs is None:
        return Text("")
    delta = ours - theirs
    gain = -delta if lower_is_better else delta
    return Text(format_score(delta, signed=True), style="green" if gain > 0 else "red" if gain < 0 else "dim")
