"""The text of `evolve eval`: for every task and metric the models below one another, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evolve.evaluation.score_models import Measurement, ModelScores
from evolve.report.formatting import format_interval, objective_text, shortened, single_line
from evolve.report.intervals import Interval, mean_interval, objective_interval
from evolve.report.text_table import TextPage
from evolve.scoring import Objective, ObjectiveTerm, paired_difference

LEVEL = 0.95
Items = Mapping[str, Mapping[int, float]]  # task -> item -> contribution


def render_scores(
    results: Sequence[ModelScores],
    directions: Mapping[str, Mapping[str, str]],
    objective: Objective | None,
    width: int,
) -> str:
    """A table for every metric of every task and, with several tasks, one for the objective.

    Args:
        results: the models in the order they were named; differences are to the first.
        directions: task -> metric -> maximize or minimize, in the order to show.
        objective: what the tasks' own metrics become; None leaves that table out.
        width: columns of the terminal.
    """
    page = TextPage(width)
    for task, metrics in directions.items():
        for metric, direction in metrics.items():
            found = [scores.tasks.get(task, {}).get(metric) for scores in results]
            if any(found):
                _print_metric(page, results, task, metric, direction, found, width)
    scored = any(scores.tasks for scores in results)
    if scored and objective is not None and len(objective.terms) > 1:
        _print_objective(page, results, objective, width)
    for scores in results:
        if scores.error is not None:
            page.add(f"{single_line(scores.label)} failed: {single_line(scores.error)}")
    notes = f"Brackets: {100 * LEVEL:g} % intervals over items."
    if len(results) > 1:
        notes += f" Differences: model minus {single_line(results[0].label)}, paired by item."
    if scored:
        page.add(notes)
    return str(page)


def _print_metric(
    page: TextPage,
    results: Sequence[ModelScores],
    task: str,
    metric: str,
    direction: str,
    found: Sequence[Measurement | None],
    width: int,
) -> None:
    items = max(measured.score.items for measured in found if measured is not None)
    lower = " (lower is better)" if direction == "minimize" else ""
    # In the metric's own unit and sign, whatever is better: this is a table of scores and not of merits.
    alone = Objective({task: ObjectiveTerm(1.0, "maximize")})
    rows = []
    for scores, measured in zip(results, found, strict=True):
        if measured is None:
            rows.append((scores.label, "failed" if scores.error else "-", "", ""))
            continue
        interval = mean_interval(measured.contributions, LEVEL)
        stderr = measured.score.stderr
        difference = ""
        if scores is not results[0] and found[0] is not None:
            difference = _difference({task: measured.contributions}, {task: found[0].contributions}, alone)
        shown = Interval(measured.score.value, interval.low, interval.high)
        rows.append((scores.label, format_interval(shown), "-" if stderr is None else f"{stderr:.4f}", difference))
    title = f"{single_line(task)}: {single_line(metric)}{lower}, {items} item{'' if items == 1 else 's'}"
    _print_rows(page, title, ("score", "stderr", "difference"), rows, width)


def _print_objective(page: TextPage, results: Sequence[ModelScores], objective: Objective, width: int) -> None:
    items: list[Items] = [
        {name: next(iter(metrics.values())).contributions for name, metrics in scores.tasks.items() if metrics}
        for scores in results
    ]
    rows = []
    for scores, contributions in zip(results, items, strict=True):
        interval = objective_interval(contributions, objective, LEVEL)
        if interval is None:
            rows.append((scores.label, "failed", ""))
            continue
        comparable = scores is not results[0] and objective.terms.keys() <= items[0].keys()
        difference = _difference(contributions, items[0], objective) if comparable else ""
        rows.append((scores.label, format_interval(interval), difference))
    _print_rows(page, f"All: {objective_text(objective)}, higher is better", ("score", "difference"), rows, width)


def _difference(ours: Items, theirs: Items, objective: Objective) -> str:
    if not all(ours[name].keys() & theirs[name].keys() for name in objective.terms):
        return "-"
    found = paired_difference(ours, theirs, objective, confidence=LEVEL, resamples=10_000)
    return format_interval(Interval(found.difference, found.low, found.high), signed=True)


def _print_rows(page: TextPage, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    widths = [max(len(row[place + 1]) for row in [*rows, ("", *columns)]) for place in range(len(columns))]
    room = max(width - sum(widths) - 3 * len(widths), 12)
    names = [shortened(single_line(row[0]), room) for row in rows]
    page.add_table(title, columns, [(name, *row[1:]) for name, row in zip(names, rows, strict=True)], widths)
