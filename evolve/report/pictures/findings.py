"""Findings of a search beside its best: which genes mattered, and the gradient start."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from evolve.report.pictures.gene_places import GenePlace, gene_groups
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import BEST, SERIES, UNIFORM, figure, text
from evolve.report.run_record import RunRecord
from evolve.trials.step import Step

_MOST_BARS = 20
_STANDS_OUT = 0.05  # of all that separates candidates, in one of many genes


@picture(
    "importances",
    "Which genes mattered",
    "Each gene's share of what separates the better candidates (PED-ANOVA, Watanabe et al. 2023). A rough estimate if "
    "candidates are few. Where none of many genes stands out, they are summed up by model, kind of tensor and layer.",
)
def importances(run: RunRecord) -> Any:
    """Bars of the largest importances."""
    ranked = sorted(run.importances.items(), key=lambda item: -item[1])
    if len(ranked) < 2:
        return None
    if len(ranked) > _MOST_BARS and ranked[0][1] < _STANDS_OUT:
        return _summed_up(run.importances)
    return _bars([(text(str(GenePlace.read(name)), 60), share) for name, share in ranked[:_MOST_BARS]])


def _summed_up(shares: Mapping[str, float]) -> Any:
    """Bars of groups of genes, and what each would have if all genes mattered alike."""
    rows: list[tuple[str, float]] = []
    alike: list[float | None] = []
    for heading, groups in gene_groups(shares).items():
        if len(groups) > 1:
            rows += [(f"<b>{heading}</b>", 0.0)]
            rows += [(text(group, 60), sum(shares[name] for name in names)) for group, names in groups.items()]
            alike += [None, *(len(names) / len(shares) for names in groups.values())]
    made = _bars(rows)
    made.add_trace(
        go.Scatter(
            x=alike,
            y=list(range(len(rows))),
            mode="markers",
            name="if all genes mattered alike",
            marker={"color": UNIFORM, "symbol": "diamond", "size": 7},
            hoverinfo="name+x",
        )
    )
    return made


@picture(
    "gradient",
    "The gradient start",
    "Mean probability of a right answer on the items of each step, from every start that was followed; dotted: the "
    "tasks, from the start that was followed longest. Later steps use more items.",
)
def gradient(run: RunRecord) -> Any:
    """Probability against steps: the mean of the tasks on every way, and each task on the longest."""
    ways: dict[str, list[Step]] = {}
    for step in run.steps:
        if step.probabilities:
            ways.setdefault(step.way, []).append(step)
    longest = max(ways.values(), key=len, default=[])
    if len(longest) < 2:
        return None
    tasks = list(dict.fromkeys(name for step in longest for name in step.probabilities))
    lines: list[tuple[str, list[Step], Sequence[float | None], str, float]] = [
        (f"from {way}" if way else "mean", steps, [fmean(step.probabilities.values()) for step in steps], "solid", 2.5)
        for way, steps in ways.items()
    ]
    if len(tasks) > 1:
        lines += [(task, longest, [step.probabilities.get(task) for step in longest], "dot", 1.2) for task in tasks]
    made = figure(xaxis_title="step", yaxis_title="probability of a right answer", height=380)
    for (name, steps, values, dash, width), colour in zip(lines, itertools.cycle(SERIES), strict=False):
        made.add_trace(
            go.Scatter(
                x=list(range(1, len(steps) + 1)),
                y=values,
                mode="lines",
                name=text(name, 48),
                line={"width": width, "dash": dash, "color": colour},
            )
        )
    return made


def _bars(rows: list[tuple[str, float]]) -> Any:
    made = figure(height=26 * len(rows) + 90, xaxis_title="share")
    made.add_trace(
        go.Bar(
            y=list(range(len(rows))),
            x=[value for _, value in rows],
            orientation="h",
            name="share",
            showlegend=False,
            marker={"color": BEST},
            hovertext=[name for name, _ in rows],
            hoverinfo="text+x",
        )
    )
    made.update_yaxes(autorange="reversed", tickvals=list(range(len(rows))), ticktext=[name for name, _ in rows])
    made.update_xaxes(tickformat=".0%", nticks=5, rangemode="tozero")
    return made
