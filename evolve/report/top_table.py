"""The best models of a run below one another: scores by task, and which parents each beats."""

from __future__ import annotations

from typing import Any

from evolve.report.beaten_parents import beaten_parents, beaten_text
from evolve.report.formatting import format_score, shortened_label, single_line
from evolve.report.run_record import RunRecord
from evolve.report.text_table import TextPage
from evolve.trials.trial import Trial

_LABEL, _SCORE = 34, 9  # characters


def top_models(run: RunRecord, count: int) -> list[Trial]:
    """The best of all that was scored on the search items, parents and uniform merge included, the best first."""
    scored = [trial for trial in run.trials if trial.objective is not None]
    return sorted(scored, key=lambda trial: (-(trial.objective or 0.0), trial.number))[:count]


def top_facts(run: RunRecord, count: int) -> list[dict[str, Any]]:
    """The same as data."""
    return [
        {
            "number": trial.number,
            "label": trial.label,
            "kind": trial.kind.value,
            "objective": trial.objective,
            "task_scores": dict(trial.task_scores),
            "beats": beaten_parents(trial, run.parents),
            "is_result": _is_result(run, trial),
        }
        for trial in top_models(run, count)
    ]


def render_top(run: RunRecord, count: int, width: int = 100) -> str:
    """The table as text of at most `width` columns."""
    page = TextPage(width)
    trials, tasks = top_models(run, count), [single_line(name) for name in run.tasks]
    if not trials:
        page.add(nothing_scored(run))
        return str(page)
    labels = [shortened_label(trial.label, _LABEL, is_reference=trial.is_reference) for trial in trials]
    left = width - max(map(len, labels)) - sum(max(len(name), _SCORE) + 2 for name in ["objective", *tasks]) - 2
    rows = [
        [
            label,
            format_score(trial.objective),
            *(format_score(trial.task_scores.get(name)) for name in run.tasks),
            beaten_text(trial, run.parents, left),
        ]
        for label, trial in zip(labels, trials, strict=True)
    ]
    page.add_table(
        f"{single_line(run.name)}: the best on the search items", ["objective", *tasks, "parents beaten"], rows
    )
    if run.finished and run.best is not None:
        found = run.summary.get("held_out")
        held_out = found.get(run.best.label) if isinstance(found, dict) else None
        why = f", {format_score(held_out)} on held-out items" if isinstance(held_out, float) else ""
        page.add(f"The result: {single_line(run.best.label)}{why}.")
    return str(page)


def nothing_scored(run: RunRecord) -> str:
    """What there is of a run without a scored trial: points that its gradient start has looked at, if any."""
    if not run.looks:
        return "nothing has been scored yet"
    points = f"{run.looks} point{'' if run.looks == 1 else 's'} looked at on {run.look_items} items"
    found = f"no candidate has been scored yet; the gradient start has {points}"
    best = max(run.way, key=lambda look: look.objective, default=None)
    if best is None:
        return found
    score = format_score(best.objective)
    return f"{found}, the best {single_line(best.label)}: {score} on these. It is not a candidate yet"


def _is_result(run: RunRecord, trial: Trial) -> bool:
    return run.finished and run.best is not None and trial.number == run.best.number
