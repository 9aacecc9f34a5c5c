"""Findings of a search beside its best: which genes mattered, and the gradient start."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from evolve.report.pictures.gene_places import GenePlace
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import BEST, figure, text
from evolve.report.run_record import RunRecord

_MOST_BARS = 20


@picture(
    "importances",
    "Which genes mattered",
    "Each gene's share of what separates the better candidates (PED-ANOVA, Watanabe et al. 2023). A rough estimate if "
    "candidates are few.",
)
def importances(run: RunRecord) -> Any:
    """Bars of the largest importances."""
    ranked = sorted(run.importances.items(), key=lambda item: -item[1])[:_MOST_BARS]
    if len(ranked) < 2:
        return None
    return _bars([(str(GenePlace.read(name)), share) for name, share in ranked], "share", BEST)


@picture(
    "gradient",
    "The gradient start",
    "Mean probability of a right answer on the items of each step; later steps use more items.",
)
def gradient(run: RunRecord) -> Any:
    """Probability against steps, for every task and their mean."""
    steps = [step for step in run.steps if step.probabilities]
    if len(steps) < 2:
        return None
    numbers = [step.number for step in steps]
    made = figure(xaxis_title="step", yaxis_title="probability of a right answer", height=380)
    for task in dict.fromkeys(name for step in steps for name in step.probabilities):
        made.add_trace(
            go.Scatter(
                x=numbers,
                y=[step.probabilities.get(task) for step in steps],
                mode="lines",
                name=text(task),
                line={"width": 1.2},
                opacity=0.75,
            )
        )
    mean = [fmean(step.probabilities.values()) for step in steps]
    made.add_trace(go.Scatter(x=numbers, y=mean, mode="lines", name="mean", line={"width": 3, "color": BEST}))
    return made


def _bars(rows: list[tuple[str, float]], title: str, colour: str) -> Any:
    made = figure(height=26 * len(rows) + 90, xaxis_title=title)
    names = [text(name, 60) for name, _ in rows]
    made.add_trace(
        go.Bar(
            y=list(range(len(rows))),
            x=[value for _, value in rows],
            orientation="h",
            marker={"color": colour},
            hovertext=[text(name, 400) for name, _ in rows],
            hoverinfo="text+x",
        )
    )
    made.update_yaxes(autorange="reversed", tickvals=list(range(len(rows))), ticktext=names)
    return made
