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

from evolve.report.best_curve import BestCurve
from evolve.report.formatting import (
    finish_text,
    format_cost,
    format_duration,
    format_score,
    plan_line,
    reading_text,
    single_line,
    stop_text,
    stopping_text,
    write_line,
)
from evolve.report.leaderboard import hidden_scores, leaderboard, leaders
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

_REFERENCES = "parents and uniform merge are scored"
_LOWEST_SCREEN = 20  # lines, below which there is no curve


class RichWatcher:
    """A live display: bar, curve of the best, leaderboard with the parents each beats, the last failure.

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
        self._item_evaluations = 0
        self._best: list[float] = []  # objective of the best candidate, after each of them
        self._parents: dict[int, Trial] = {}
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
                self._plan, self._item_evaluations = event, event.item_evaluations
                self._resume(event.resumed)
                self._open()
            case GradientStepped() | PointLookedAt():
                with self._frame:
                    self._way = event if isinstance(event, GradientStepped) else self._way
                    self._looked = event if isinstance(event, PointLookedAt) else self._looked
                    self._item_evaluations = event.item_evaluations
            case TrialFinished():
                known = (*self._leaders, event.trial, event.best, event.best_parent, event.uniform)
                with self._frame:
                    self._begun = {label: at for label, at in self._begun.items() if label != event.trial.label}
                    self._way = self._looked = None
                    self._last, self._last_at = event, self._clock()
                    self._done, self._item_evaluations = event.candidates_done, event.item_evaluations
                    self._uniform = event.uniform
                    if event.best_parent is not None:
                        self._parents[event.best_parent.number] = event.best_parent
                    self._leaders = leaders(known)
                    self._add(event.trial)
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
        self._leaders = leaders(trials)
        self._uniform = next((trial for trial in trials if trial.kind is Kind.UNIFORM), None)
        for trial in trials:
            self._add(trial)

    def _add(self, trial: Trial) -> None:
        """Take one more into account."""
        if trial.state is State.FAILED:
            self._failures, self._failed = self._failures + 1, trial
        if trial.kind is Kind.PARENT:
            self._parents[trial.number] = trial
        elif trial.kind is Kind.CANDIDATE and (self._best or trial.objective is not None):
            before = self._best[-1:]
            self._best.append(max([*before, *([] if trial.objective is None else [trial.objective])]))

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
        if len(self._best) > 1 and self._console.height >= _LOWEST_SCREEN:
            rows.append(self._curve())
        if self._leaders:
            rows += self._scores()
        if self._failed is not None:
            failure = f"{single_line(self._failed.label)} failed: {single_line(self._failed.measured.failure or '')}"
            rows.append(Text(failure, style="red", no_wrap=True, overflow="ellipsis"))
        return Group(*rows)

    def _bar(self) -> RenderableType:
        """How much of the budget is spent; of candidates, where there are bounds of both kinds."""
        done, items = self._done, self._item_evaluations
        budget = self._last.evaluation_budget if self._last else self._plan and self._plan.evaluation_budget
        most_items = self._plan.item_budget if self._plan else None
        told = f"{done}/{budget} candidates" if budget else f"{done} candidate{'' if done == 1 else 's'}"
        if self._is_at_gradient:
            told = f"gradient start, {told}" if budget else "gradient start"
        if items:
            told += f", {items}{f'/{most_items}' if most_items else ''} item evaluations"
        if budget is None and most_items is not None:
            done, budget = items, most_items
        if self._finalist is not None:
            done, budget = self._finalist.done, self._finalist.total
            told = f"{done}/{budget} held-out"
        grid = Table.grid(padding=(0, 2), expand=bool(budget))
        if budget:
            grid.add_column(ratio=1)
            grid.add_column(no_wrap=True)
            grid.add_row(ProgressBar(total=budget, completed=done), Text(told, style="bold"))
        else:
            grid.add_row(Text(told, style="bold"))
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
        elif self._way is not None or self._looked is not None:
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
                first = "the starts of the gradient are looked at" if self._is_at_gradient else _REFERENCES
                parts.append((f"{first} first", "yellow"))
        else:
            parts.append((f"{self._last.seconds_per_evaluation:.1f} s each", ""))
            if self._last.seconds_left is not None:
                left = max(0.0, self._last.seconds_left - (self._clock() - self._last_at))
                parts.append((f"{format_duration(left)} left", "cyan"))
            for cost, value in self._last.costs.items():
                parts.append((f"{cost} of the best {format_cost(value, None)}", ""))
        if self._failures:
            parts.append((f"{self._failures} failed", "red"))
        separated = [piece for part in parts for piece in ((" · ", "dim"), part)][1:]
        return Text.assemble(*separated)

    @property
    def _is_at_gradient(self) -> bool:
        """Whether the gradient start is not over: it is what the plan begins with, or was the last to be told of."""
        if self._done or self._stopped is not None or self._plan is None:
            return False
        begins = self._last is None and not self._plan.resumed and self._plan.start.startswith("gradient")
        return begins or self._way is not None or self._looked is not None

    def _work(self) -> Text:
        """ "at work: candidate 7 (12 s), candidate 8 (3 s)"."""
        now = self._clock()
        work = [f"{single_line(label)} ({format_duration(now - at)})" for label, at in self._begun.items()]
        return Text(f"at work: {', '.join(work)}", style="dim", no_wrap=True, overflow="ellipsis")

    def _curve(self) -> BestCurve:
        marks = {"best parent": next(iter(leaders(self._parents.values())), None), "uniform": self._uniform}
        return BestCurve(
            self._best, {name: one.objective for name, one in marks.items() if one and one.objective is not None}
        )

    def _scores(self) -> list[RenderableType]:
        plan, width = self._plan, self._console.width
        names = plan.task_names if plan else list(self._leaders[0].task_scores)
        minimized = plan.minimized_tasks if plan else ()
        table = leaderboard(self._leaders, list(self._parents.values()), self._uniform, names, minimized, width)
        hidden = hidden_scores(self._leaders[0], names, width)
        return [table] if hidden is None else [table, hidden]
