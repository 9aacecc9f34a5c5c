"""The best models of a search that goes on, below one another, and the best against what it is to beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from evolve.report.beaten_parents import beaten_text
from evolve.report.formatting import format_score, shortened, shortened_label, single_line
from evolve.trials.trial import Kind, Trial

LENGTH = 5
_NARROWEST_LABEL, _WIDEST_LABEL = 24, 48
_OBJECTIVE_WIDTH = 9
_WIDEST_TASK = 14
_NARROWEST_BEATS, _WIDEST_BEATS = 8, 24
_NOTE_WIDTH = 9  # "+12 more", of tasks
_NARROW = 60  # columns of a terminal below which there is no such note,
_NARROWEST = 50  # and below which nothing is said of the parents that are beaten


def leaders(trials: Iterable[Trial | None]) -> tuple[Trial, ...]:
    """The best of them, the best first."""
    scored = {trial.number: trial for trial in trials if trial is not None and trial.objective is not None}
    ranked = sorted(scored.values(), key=lambda trial: (-(trial.objective or 0.0), trial.number))
    return tuple(ranked[:LENGTH])


def leaderboard(
    best: Sequence[Trial],
    parents: Sequence[Trial],
    uniform: Trial | None,
    task_names: Sequence[str],
    minimized_tasks: Sequence[str],
    width: int,
) -> Table:
    """A table that fits.

    Args:
        best: the best first; at least one.
        parents: all that are scored.
        uniform: the uniform merge, where it is scored.
        task_names: in the order of their columns; those that do not fit are counted.
        minimized_tasks: where lower is better.
        width: columns of the terminal.
    """
    columns = _Columns.fitting(task_names, width)
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    table.add_column(Text(f"top {LENGTH}"), width=columns.label, no_wrap=True)
    table.add_column(Text("objective"), justify="right", no_wrap=True, width=_OBJECTIVE_WIDTH)
    for name in columns.tasks:
        table.add_column(
            Text(single_line(name)), justify="right", no_wrap=True, width=_task_width(name), overflow="ellipsis"
        )
    if columns.beats:
        table.add_column(Text("beats"), no_wrap=True, width=columns.beats)
    if columns.note:
        table.add_column(Text(columns.note), no_wrap=True)
    for rank, trial in enumerate(best, start=1):
        table.add_row(
            _label(f"{rank} ", trial, columns.label),
            *_cells(trial, columns.tasks),
            *([Text(beaten_text(trial, parents, columns.beats))] if columns.beats else []),
            style="bold" if rank == 1 else "dim" if trial.is_reference else "",
        )
    best_parent = next(iter(leaders(parents)), None)
    for name, reference in (("best parent", best_parent), ("uniform", uniform)):
        if reference is None or reference.objective is None:
            continue
        title = "best parent " if reference.kind is Kind.PARENT else ""
        table.add_section()
        table.add_row(_label(title, reference, columns.label), *_cells(reference, columns.tasks), style="dim")
        table.add_row(
            Text(shortened(f"  best over {name}", columns.label)),
            _delta(best[0].objective, reference.objective, False),
            *(
                _delta(best[0].task_scores.get(task), reference.task_scores.get(task), task in minimized_tasks)
                for task in columns.tasks
            ),
        )
    return table


@dataclass(frozen=True)
class _Columns:
    tasks: Sequence[str]  # whose scores are shown
    note: str  # how many are not
    label: int  # characters
    beats: int

    @classmethod
    def fitting(cls, task_names: Sequence[str], width: int) -> _Columns:
        """The first tasks whose columns fit, and how the rest of the width is shared."""
        room = width - _OBJECTIVE_WIDTH - 3
        shown: list[str] = []
        for index, name in enumerate(task_names):
            after = room - _task_width(name) - 1
            if after - (0 if index == len(task_names) - 1 else _NOTE_WIDTH) < _NARROWEST_LABEL + _NARROWEST_BEATS:
                break
            shown.append(name)
            room = after
        hidden = len(task_names) - len(shown)
        note = f"+{hidden} more" if hidden and width >= _NARROW else ""
        room -= _NOTE_WIDTH if note else 0
        beats = min(max(room - _NARROWEST_LABEL, _NARROWEST_BEATS), _WIDEST_BEATS) if width >= _NARROWEST else 0
        return cls(shown, note, min(max(room - beats, 1), _WIDEST_LABEL), beats)


def hidden_scores(best: Trial, task_names: Sequence[str], width: int) -> Text | None:
    """What the best scored in the tasks whose columns do not fit, in two lines at most; None where all do.

    Args:
        best: the first of the table.
        task_names, width: of the table.
    """
    shown = _Columns.fitting(task_names, width).tasks
    hidden = [name for name in task_names[len(shown) :] if name in best.task_scores]
    parts = [f"{single_line(name)} {format_score(best.task_scores[name])}" for name in hidden]
    if not parts:
        return None
    text = f"{single_line(best.label)}: {' · '.join(parts)}"
    # Lines break between words, so that two of them hold a little less than their letters.
    return Text(text if len(text) <= 2 * width - _WIDEST_TASK else f"{text[: 2 * width - _WIDEST_TASK]}…")


def _task_width(name: str) -> int:
    return min(max(len(name), 8), _WIDEST_TASK)


def _label(prefix: str, trial: Trial, width: int) -> Text:
    """Prefix and label in one column."""
    return Text(prefix + shortened_label(trial.label, width - len(prefix), is_reference=trial.is_reference))


def _cells(trial: Trial, task_names: Sequence[str]) -> list[Text]:
    scores = [trial.objective, *(trial.task_scores.get(name) for name in task_names)]
    return [Text(format_score(score)) for score in scores]


def _delta(ours: float | None, theirs: float | None, lower_is_better: bool) -> Text:
    if ours is None or theirs is None:
        return Text("")
    delta = ours - theirs
    gain = -delta if lower_is_better else delta
    return Text(format_score(delta, signed=True), style="green" if gain > 0 else "red" if gain < 0 else "dim")
