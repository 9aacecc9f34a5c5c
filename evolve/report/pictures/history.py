"""How a search went: the best so far against what it had cost, beside parents and uniform merge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from evolve.report.formatting import format_score
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import BEST, CANDIDATE, PARENTS, SEARCH, SERIES, UNIFORM, figure, text
from evolve.report.run_record import RunRecord
from evolve.trials.spending import Purpose
from evolve.trials.trial import Trial

_ITEMS, _SECONDS = "item evaluations", "seconds of work"


@picture(
    "history",
    "How the search went",
    "The objective of every candidate on the search items, and the best so far, beside parents and uniform merge. "
    "Points of the gradient start are scored on some of the items only.",
)
def history(run: RunRecord) -> Any:
    """Objective against item evaluations, or against seconds of workers."""
    scored = [trial for trial in run.trials if trial.objective is not None and not trial.is_reference]
    if not run.complete or len(scored) + len(run.way) < 2:
        return None
    items, seconds = _costs(run, scored)
    best = list(itertools.accumulate((trial.objective or 0.0 for trial in scored), max))
    made = figure(xaxis_title=_ITEMS, yaxis_title="objective", height=500)
    hover = [f"{text(trial.label)}: {format_score(trial.objective)}" for trial in scored]
    made.add_trace(
        go.Scatter(
            x=items,
            y=[trial.objective for trial in scored],
            mode="markers",
            name="candidates",
            marker={"color": CANDIDATE, "size": 6},
            hovertext=hover,
            hoverinfo="text",
        )
    )
    made.add_trace(
        go.Scatter(
            x=items,
            y=best,
            mode="lines+markers" if len(best) == 1 else "lines",
            name="best so far",
            line={"color": BEST, "width": 3, "shape": "hv"},
        )
    )
    if run.way:
        made.add_trace(
            go.Scatter(
                x=[look.spent for look in run.way],
                y=list(itertools.accumulate((look.objective for look in run.way), max)),
                mode="lines+markers",
                name="gradient start, on some of the items",
                line={"color": SEARCH, "width": 1.5},
                marker={"size": 4, "color": SEARCH},
                hovertext=[f"{text(look.label)}: {format_score(look.objective)}" for look in run.way],
                hoverinfo="text",
            )
        )
    references = _references(run)
    for trial, colour, dash in references:
        made.add_trace(
            go.Scatter(
                x=[0, items[-1]],
                y=[trial.objective] * 2,
                mode="lines",
                name=text(run.short_names.get(trial.label, trial.label)),
                hovertext=f"{text(trial.label)}: {format_score(trial.objective)}",
                hoverinfo="text",
                line={"color": colour, "dash": dash, "width": 1.5},
            )
        )
    buttons = [
        {
            "label": label,
            "method": "update",
            "args": [{"x": [x, x, *way, *([[0, x[-1]]] * len(references))]}, {"xaxis.title.text": label}],
        }
        for label, x, way in (
            (_ITEMS, items, [[look.spent for look in run.way]] * bool(run.way)),
            (_SECONDS, seconds, [[]] * bool(run.way)),  # when each was is not kept
        )
    ]
    made.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "type": "buttons",
                "direction": "right",
                "x": 1,
                "xanchor": "right",
                "y": 0,
                "yanchor": "top",
                "pad": {"t": 44},
                "showactive": True,
            }
        ],
        xaxis_title_standoff=4,
        margin={"l": 56, "r": 16, "t": 16, "b": 96},
    )
    return made


def histories(runs: Sequence[RunRecord]) -> Any:
    """The best so far of several runs in one picture; None where none has any."""
    made = figure(xaxis_title=_ITEMS, yaxis_title="best objective so far", height=420)
    for run, colour in zip(runs, itertools.cycle(SERIES), strict=False):
        scored = [trial for trial in run.trials if trial.objective is not None and not trial.is_reference]
        if scored:
            best = list(itertools.accumulate((trial.objective or 0.0 for trial in scored), max))
            line = {"color": colour, "width": 3, "shape": "hv"}
            made.add_trace(
                go.Scatter(x=_costs(run, scored)[0], y=best, mode="lines+markers", name=text(run.name), line=line)
            )
    return made if made.data else None


def _costs(run: RunRecord, scored: Sequence[Trial]) -> tuple[list[int], list[float]]:
    """What had been spent when each was scored: steps and looks of the gradient come before all candidates."""
    before = [run.spending.get(purpose, 0) for purpose in (Purpose.STEPS, Purpose.LOOKS)]
    items, seconds = sum(before), sum(step.seconds for step in run.steps)
    found: dict[int, tuple[int, float]] = {}
    for trial in run.trials:
        items += trial.measured.new_items
        seconds += trial.measured.total_seconds
        found[trial.number] = items, seconds
    return [found[trial.number][0] for trial in scored], [round(found[trial.number][1], 1) for trial in scored]


def _references(run: RunRecord) -> list[tuple[Trial, str, str]]:
    """Parents, the best first, and uniform merge, with colour and dashes of their lines."""
    colours, dashes = itertools.cycle(PARENTS), itertools.cycle(("dash", "dot", "dashdot", "longdash", "longdashdot"))
    scored = [trial for trial in run.parents if trial.objective is not None]
    scored.sort(key=lambda trial: -(trial.objective or 0.0))
    lines = list(zip(scored, colours, dashes, strict=False))
    uniform = run.uniform
    return lines + ([(uniform, UNIFORM, "solid")] if uniform is not None and uniform.objective is not None else [])
