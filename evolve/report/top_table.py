"""The best models of a run below one another: scores by task, and which parents each beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evolve.report.formatting import format_score, shortened, single_line
from evolve.report.run_record import RunRecord
from evolve.report.text_table import TextPage
from evolve.trials.trial import Trial

_LABEL = 34


def top_models(run: RunRecord, count: int) -> list[Trial]:
    """The best of all that was scored on the search items, parents and uniform merge included, the best first."""
    scored = [trial for trial in run.trials if trial.objective is not None]
    return sorted(scored, key=lambda trial: (-(trial.objective or 0.0), trial.number))[:count]


def beaten_parents(run: RunRecord, trial: Trial) -> list[str]:
    """Labels of the parents with a lower objective on the search items."""
    known = [parent for parent in run.parents if parent.objective is not None and parent is not trial]
    return [parent.label for parent in known if (trial.objective or 0.0) > (parent.objective or 0.0)]


def top_facts(run: RunRecord, count: int) -> list[dict[str, Any]]:
    """The same as data."""
    return [
        {
            "number": trial.number,
            "label": trial.label,
            "kind": trial.kind.value,
            "objective": trial.objective,
            "task_scores": dict(trial.task_scores),
            "beats": beaten_parents(run, trial),
        }
        for trial in top_models(run, count)
    ]


def render_top(run: RunRecord, count: int, width: int = 100) -> str:
    """The table as text of at most `width` columns."""
    page = TextPage(width)
    rows = [_row(run, trial) for trial in top_models(run, count)]
    if not rows:
        return "nothing has been scored yet\n"
    headings = ["objective", *(single_line(name) for name in run.tasks), "parents beaten"]
    page.add_table(f"{single_line(run.name)}: the best on the search items", headings, rows)
    return str(page)


def _row(run: RunRecord, trial: Trial) -> Sequence[str]:
    label = shortened(single_line(trial.label), _LABEL)
    scores = [format_score(trial.task_scores.get(name)) for name in run.tasks]
    beaten, all_parents = len(beaten_parents(run, trial)), sum(parent is not trial for parent in run.parents)
    return [
        label,
        format_score(trial.objective),
        *scores,
        "all" if beaten == all_parents else f"{beaten} of {all_parents}",
    ]
