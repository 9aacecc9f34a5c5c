"""What a search found, from plain data to text: the score table, its verdict, and the trials as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evolve.report.degenerate import degenerate_notes
from evolve.report.formatting import format_interval, objective_text, shortened, single_line
from evolve.report.intervals import Interval, TaskColumn, mean_interval, objective_interval, weighted_sum
from evolve.report.text_table import TextPage
from evolve.scoring import Objective, paired_difference
from evolve.trials.trial import ItemScores, Kind, Trial
from merge_core import Recipe
from merge_core.atomic_output import write_atomically

__all__ = [
    "Comparison",
    "Interval",
    "ScoreRow",
    "ScoreTable",
    "Scores",
    "TaskColumn",
    "render_table",
    "score_table",
    "verdict",
    "write_trials_csv",
]

RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Scores:
    """One model on one set of items."""

    objective: Interval | None = None
    tasks: Mapping[str, Interval] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)  # task -> how many


@dataclass(frozen=True)
class ScoreRow:
    """A parent, the uniform merge or the best model, on search and on held-out items."""

    number: int
    name: str  # "addition", "uniform", "candidate 17"
    role: str  # "parent", "uniform" or "best"
    search: Scores
    held_out: Scores
    failure: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The best model against one reference."""

    reference: str  # "the best parent (addition)"
    difference: Interval  # of the objectives, best minus reference, paired by item
    items: int  # that both were scored on
    identical: bool  # the same score on every single item


@dataclass(frozen=True)
class ScoreTable:
    """Everything the terminal and the model card say about scores."""

    tasks: Sequence[TaskColumn]
    rows: Sequence[ScoreRow]  # parents, uniform, best
    best: Trial
    comparisons: Sequence[Comparison]  # best parent first, then uniform; without what could not be compared
    compared_on: Literal["held-out", "search"]  # "search" when nothing was held out
    confidence_level: float
    shared_items: int  # held-out items that the search saw too; anything but 0 is a mistake
    objective: Objective  # what the tasks' scores become

    @property
    def objective_is_task(self) -> bool:
        """True where the objective is the score of the only task, so that one column shows both."""
        return len(self.tasks) == 1 and self.tasks[0].direction == "maximize" and not self.objective.scales

    @property
    def best_row(self) -> ScoreRow:
        """The row of the chosen model."""
        return next(row for row in self.rows if row.number == self.best.number)


def score_table(
    trials: Sequence[Trial],
    held_out: Mapping[int, ItemScores],
    tasks: Sequence[TaskColumn],
    chosen: int,
    *,
    objective: Objective | None = None,
    confidence_level: float = 0.95,
    seed: int = 0,
) -> ScoreTable:
    """Parents, uniform merge and best, with intervals, and the best against the references, item by item.

    The best parent is the one with the highest objective on the held-out items (on the search items when none
    were held out), which is the hardest choice for the best model.

    Args:
        trials: the journal; search scores come from here. Their item scores, and the held-out ones, are
            contributions: numbers whose mean is the task's score (`Scorer.contributions`).
        held_out: trial number -> task -> item -> score, of references and finalists. May be empty.
        tasks: the columns.
        chosen: number of the trial that is saved.
        objective: what the tasks' scores become; None is the weighted mean of the columns.
        confidence_level: coverage of every interval, in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: when no trial has the number `chosen`.
    """
    by_number = {trial.number: trial for trial in trials}
    if chosen not in by_number:
        raise ValueError(f"report: trial {chosen} was chosen, but the journal has {len(trials)} trials without it")
    best = by_number[chosen]
    objective = objective or weighted_sum(tasks)
    shown = [trial for trial in trials if trial.is_reference and trial is not best] + [best]
    on_search = {trial.number: _scored_tasks(trial.measured.scores, tasks) for trial in shown}
    on_held_out = {trial.number: _scored_tasks(held_out.get(trial.number, {}), tasks) for trial in shown}
    rows = [
        ScoreRow(
            number=trial.number,
            name=trial.label + (" (infeasible)" if trial.measured.violations else ""),
            role="best" if trial is best else trial.kind.value,
            search=_scores(on_search[trial.number], objective, confidence_level, seed),
            held_out=_scores(on_held_out[trial.number], objective, confidence_level, seed),
            failure=trial.measured.failure,
        )
        for trial in shown
    ]
    compared_on: Literal["held-out", "search"] = "held-out" if on_held_out[chosen] else "search"
    items = on_held_out if compared_on == "held-out" else on_search

    compared = {row.number: row.held_out if compared_on == "held-out" else row.search for row in rows}

    def height(trial: Trial) -> float:
        interval = compared[trial.number].objective
        return -math.inf if interval is None else interval.value

    parents = [trial for trial in shown if trial.kind is Kind.PARENT and trial is not best]
    against = sorted(parents, key=lambda trial: (-height(trial), trial.number))[:1]
    against += [trial for trial in shown if trial.kind is Kind.UNIFORM and trial is not best]
    comparisons = []
    for trial in against:
        parent = f"the best {'other ' if best.kind is Kind.PARENT else ''}parent ({single_line(trial.label)})"
        name = parent if trial.kind is Kind.PARENT else "the uniform merge"
        comparison = _compare(name, items[chosen], items[trial.number], objective, confidence_level, seed)
        if comparison is not None:
            comparisons.append(comparison)
    return ScoreTable(
        tasks=tuple(tasks),
        rows=tuple(rows),
        best=best,
        comparisons=tuple(comparisons),
        compared_on=compared_on,
        confidence_level=confidence_level,
        shared_items=_shared_items(best.measured.scores, held_out.get(chosen, {})),
        objective=objective,
    )


def _scored_tasks(scores: ItemScores, tasks: Sequence[TaskColumn]) -> ItemScores:
    return {task.name: scores[task.name] for task in tasks if scores.get(task.name)}


def _compare(
    name: str, ours: ItemScores, theirs: ItemScores, objective: Objective, level: float, seed: int
) -> Comparison | None:
    """None when some task has no item that both were scored on; unbounded when some task has only one."""
    common = {task: ours.get(task, {}).keys() & theirs.get(task, {}).keys() for task in objective.terms}
    if not common or not all(common.values()):
        return None
    found = paired_difference(ours, theirs, objective, confidence=level, resamples=RESAMPLES, seed=seed)
    enough = all(len(items) > 1 for items in common.values())
    return Comparison(
        reference=name,
        difference=Interval(found.difference, *((found.low, found.high) if enough else ())),
        items=found.items,
        identical=all(ours[task][item] == theirs[task][item] for task in common for item in common[task]),
    )


def _scores(scores: ItemScores, objective: Objective, level: float, seed: int) -> Scores:
    return Scores(
        objective=objective_interval(scores, objective, level, seed),
        tasks={name: mean_interval(items, level) for name, items in scores.items()},
        items={name: len(items) for name, items in scores.items()},
    )


def _shared_items(search: ItemScores, held_out: ItemScores) -> int:
    return sum(len(search.get(name, {}).keys() & items.keys()) for name, items in held_out.items())


# --- sentences ----------------------------------------------------------------------------------------------


def verdict(table: ScoreTable) -> str:
    """Whether the best is better than the best parent and the uniform merge, in one or two sentences."""
    sentences = []
    if table.best.is_reference:
        name = "uniform merge" if table.best.kind is Kind.UNIFORM else f"parent {single_line(table.best.label)}"
        sentences.append(f"No candidate was chosen: the best model is the {name} itself.")
    if not table.comparisons:
        return " ".join([*sentences, "Nothing to compare the best with: no reference was scored on the same items."])
    beaten, others = [], []
    for comparison in table.comparisons:
        text = f"{comparison.reference} by {format_interval(comparison.difference, signed=True)}"
        if comparison.difference.low > 0:
            beaten.append(text)
        else:
            others.append(_sentence_without_gain(comparison))
    items = max(comparison.items for comparison in table.comparisons)
    ground = f"{items} {table.compared_on} item{'' if items == 1 else 's'}"
    if beaten:
        sentences.append(f"Best beats {' and '.join(beaten)} on {ground}.")
    sentences += others
    if not beaten:
        sentences[-1] = sentences[-1].removesuffix(".") + f" ({ground})."
    if table.compared_on == "search":
        sentences.append("No items were held out: the best was selected on these very items, which flatters it.")
    return " ".join(sentences)


def _sentence_without_gain(comparison: Comparison) -> str:
    interval, name = comparison.difference, comparison.reference
    text = format_interval(interval, signed=True)
    if comparison.identical:
        return f"Best scores exactly as {name} on every item."
    if interval.high < 0:
        return f"Best is worse than {name}: {text}."
    if math.isinf(interval.high):
        return f"Too few items to tell the best from {name}: {interval.value:+.3f}."
    return f"No evidence that the best is better than {name}: {text}, the interval contains 0."


# --- the table in the terminal ------------------------------------------------------------------------------


def render_table(table: ScoreTable, width: int = 80) -> str:
    """The score table as text of at most `width` columns, the verdict under it, then notes on the recipe."""
    page = TextPage(width)
    level = f"{100 * table.confidence_level:g} % intervals"
    has_held_out = any(row.held_out.tasks for row in table.rows)
    kinds = ["held_out", "search"] if has_held_out else ["search"]
    objective = f"Objective ({objective_text(table.objective)}, higher is better)"
    if len(table.tasks) == 1 and not table.objective.scales:
        only = table.tasks[0].name
        objective = only if table.objective_is_task else f"Objective (minus {only}, higher is better)"
    columns = [(_items_title(table, kind), [_scores_of(row, kind).objective for row in table.rows]) for kind in kinds]
    _print_columns(page, f"{single_line(objective)}, {level}", table, columns, width)
    if not table.objective_is_task:
        for kind in kinds:
            columns = [
                (_task_title(task), [_scores_of(row, kind).tasks.get(task.name) for row in table.rows])
                for task in table.tasks
            ]
            _print_columns(page, f"{_items_title(table, kind)}, by task", table, columns, width)
    for sentence in [verdict(table), *_warnings(table)]:
        page.add(sentence)
    return str(page)


def _warnings(table: ScoreTable) -> list[str]:
    # A reference is a single model or a plain average on purpose; the verdict says which.
    recipe_notes = [] if table.best.is_reference else degenerate_notes(Recipe.from_mapping(table.best.recipe))
    notes = [f"Note: {note}" for note in recipe_notes]
    if table.shared_items:
        notes.append(f"Warning: the search saw {table.shared_items} of the held-out items.")
    return notes


def _scores_of(row: ScoreRow, kind: str) -> Scores:
    return row.held_out if kind == "held_out" else row.search


def _items_title(table: ScoreTable, kind: str) -> str:
    items = sum(_scores_of(table.best_row, kind).items.values())
    return f"{'held-out' if kind == 'held_out' else 'search'} ({items} item{'' if items == 1 else 's'})"


def _task_title(task: TaskColumn) -> str:
    note = " (lower is better)" if task.direction == "minimize" else ""
    return single_line(task.name) + note


def _print_columns(
    page: TextPage,
    title: str,
    table: ScoreTable,
    columns: Sequence[tuple[str, Sequence[Interval | None]]],
    width: int,
) -> None:
    """Rows by columns; columns that do not fit go into another table below."""
    widest = 36 if width >= 100 else 28
    names = [_row_name(row, widest) for row in table.rows]
    name_width = max(map(len, names))
    cells = [[_cell(row, interval) for row, interval in zip(table.rows, column, strict=True)] for _, column in columns]
    cell_width = max(len(text) for column in cells for text in column)
    cell_width = max(cell_width, min(max(len(heading) for heading, _ in columns), 20))
    at_once = max(1, (width - name_width) // (cell_width + 3))
    for start in range(0, len(columns), at_once):
        page.add_table(
            title if start == 0 else f"{title} (continued)",
            [heading for heading, _ in columns[start : start + at_once]],
            zip(names, *cells[start : start + at_once], strict=True),
            [cell_width] * len(columns[start : start + at_once]),
        )


def _row_name(row: ScoreRow, width: int) -> str:
    """Role and name; a long reference loses its beginning, since its end tells it apart."""
    role = "" if row.role == Kind.UNIFORM else f"{row.role} "
    return role + shortened(single_line(row.name), width - len(role))


def _cell(row: ScoreRow, interval: Interval | None) -> str:
    if interval is not None:
        return format_interval(interval)
    return "failed" if row.failure is not None else "-"


# --- trials as a table --------------------------------------------------------------------------------------


def write_trials_csv(path: Path, trials: Sequence[Trial]) -> None:
    """One row per trial: what it was, what it scored ("score.TASK"), what it cost, its genes ("gene.NAME").

    Numbers are written so that reading them back gives the same bits; what is missing is empty. The
    file appears whole or not at all.
    """
    task_names = list(dict.fromkeys(name for trial in trials for name in trial.task_scores))
    gene_names = list(dict.fromkeys(name for trial in trials for name in trial.genes))
    header = ["number", "kind", "label", "batch", "state", "objective"]
    objectives = max((len(trial.objective_values) for trial in trials), default=0)
    header += [f"objective.{place}" for place in range(1, objectives + 1)]
    header += [f"score.{name}" for name in task_names]
    constraint_names = list(dict.fromkeys(name for trial in trials for name in trial.measured.constraints))
    header += [f"constraint.{name}" for name in constraint_names] + (["violation"] if constraint_names else [])
    skips = any(trial.measured.skipped for trial in trials)
    header += ["skipped_items"] if skips else []
    header += ["merge_seconds", "forward_seconds", "total_seconds", "failure"]
    header += [f"gene.{name}" for name in gene_names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for trial in trials:
        measured = trial.measured
        fields = [trial.number, trial.kind.value, trial.label, trial.batch, trial.state.value]
        cells = [*fields, trial.objective, *(trial.objective_values or [None] * objectives)]
        cells += [trial.task_scores.get(name) for name in task_names]
        cells += [measured.constraints.get(name) for name in constraint_names]
        cells += [measured.total_violation] if constraint_names else []
        cells += [sum(map(len, measured.skipped.values()))] if skips else []
        cells += [measured.merge_seconds, measured.forward_seconds, measured.total_seconds, measured.failure]
        cells += [_csv_value(trial.genes.get(name)) for name in gene_names]
        writer.writerow(cells)
    write_atomically(path, text.getvalue())


def _csv_value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, Mapping | list | tuple) else value
