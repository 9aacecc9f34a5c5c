"""The score table of a search as text, with its verdict and notes."""

from __future__ import annotations

from collections.abc import Sequence

from evolve.report.degenerate import degenerate_notes
from evolve.report.formatting import format_cost, format_interval, objective_text, shortened_label, single_line
from evolve.report.intervals import Interval, TaskColumn
from evolve.report.score_table import ScoreRow, Scores, ScoreTable
from evolve.report.text_table import TextPage
from evolve.report.verdict import verdict
from evolve.trials.costs import Cost
from evolve.trials.trial import Kind
from merge_core import documents_of


def render_table(table: ScoreTable, width: int = 80) -> str:
    """The score table as text of at most `width` columns, the verdict under it, then notes on the recipe."""
    page = TextPage(width)
    level = f"{100 * table.confidence_level:g} % intervals"
    has_held_out = any(row.held_out.tasks for row in table.rows)
    kinds = ["held_out", "search"] if has_held_out else ["search"]
    objective = f"Objective ({objective_text(table.objective, table.cost_terms)}, higher is better)"
    if len(table.tasks) == 1 and not table.objective.scales and not table.cost_terms.counts:
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
    _print_costs(page, table, kinds)
    for sentence in [verdict(table), *_warnings(table)]:
        page.add(sentence)
    return str(page)


def _print_costs(page: TextPage, table: ScoreTable, kinds: Sequence[str]) -> None:
    for cost in table.cost_terms.weights:
        rows = [[_row_name(row, 28), *cost_cells(table, row, cost, kinds)] for row in table.rows]
        page.add_table(
            f"{cost} (lower is better; against the best parent)", [_items_title(table, k) for k in kinds], rows
        )


def cost_cells(table: ScoreTable, row: ScoreRow, cost: Cost, kinds: Sequence[str]) -> list[str]:
    """What a model costs on held-out and search items, beside the best parent."""
    found = [_scores_of(row, kind).costs.get(cost) for kind in kinds]
    return ["-" if value is None else format_cost(value, table.cost_terms.relative(cost, value)) for value in found]


def _warnings(table: ScoreTable) -> list[str]:
    # A reference is a single model or a plain average on purpose; the verdict says which.
    recipe_notes = [] if table.best.is_reference else degenerate_notes(documents_of(table.best.recipe)[0])
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
    """Rows by columns, which are as wide in every table."""
    widest = 36 if width >= 100 else 28
    cells = [[_cell(row, interval) for row, interval in zip(table.rows, column, strict=True)] for _, column in columns]
    cell_width = max(len(text) for column in cells for text in column)
    cell_width = max(cell_width, min(max(len(heading) for heading, _ in columns), 20))
    names = [_row_name(row, widest) for row in table.rows]
    headings = [heading for heading, _ in columns]
    page.add_table(title, headings, zip(names, *cells, strict=True), [cell_width] * len(columns))


def _row_name(row: ScoreRow, width: int) -> str:
    """Role and name."""
    role = "" if row.role == Kind.UNIFORM else f"{row.role} "
    return role + shortened_label(row.name, width - len(role), is_reference=row.role != "best")


def _cell(row: ScoreRow, interval: Interval | None) -> str:
    if interval is not None:
        return format_interval(interval)
    return "failed" if row.failure is not None else "-"
