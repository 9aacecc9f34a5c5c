"""What all pictures have in common: colours that tell apart on light and on dark, and names that are no HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from evolve.report.formatting import shortened, single_line

BEST = "#2f81d8"
CANDIDATE = "#8fa3b8"
HELD_OUT = "#2f81d8"
SEARCH = "#9db9d9"
UNIFORM = "#d9822b"
PARENT = "#6d8f5a"
PARENTS = ("#4f9d5d", "#b05fb0", "#3aa6a6", "#8a7a3d", "#7a7fd0", "#c8514a")
MUTED = "#9aa5b1"
BAD = "#c8514a"
SERIES = ("#2f81d8", "#d9822b", "#4f9d5d", "#b05fb0", "#c8514a", "#3aa6a6", "#8a7a3d", "#7a7fd0")
DIVERGING = ((0.0, "#b5482f"), (0.5, "#e8e6e1"), (1.0, "#2a6fb5"))
RANKING = ((0.0, "#d9822b"), (0.5, "#9aa5b1"), (1.0, "#2f81d8"))  # from the worst to the best

WIDEST_NAME = 28
MOST_WRITTEN = 16  # columns of a heat map whose numbers are written into it


def text(name: str, width: int = WIDEST_NAME) -> str:
    """A name as plotly shows it, which would take tags in it for its own.

    Args:
        name: of a model, a task, a gene, an error: whatever somebody wrote.
        width: a longer one loses its beginning, since its end tells it apart.
    """
    return html.escape(shortened(single_line(name), width), quote=False)


def figure(**layout: Any) -> Any:
    """A plotly figure without colours of its own, so that it stands on any background."""
    made = go.Figure()
    made.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=SERIES,
        margin={"l": 56, "r": 16, "t": 16, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        **layout,
    )
    made.update_xaxes(automargin=True, zeroline=False)
    made.update_yaxes(automargin=True, zeroline=False)
    return made


def least_width(shown: Any) -> int:
    """How narrow a figure may be, in pixels; a phone scrolls to what is wider."""
    for trace in shown.data:
        if trace.type == "heatmap":
            names = max(map(len, shown.layout.yaxis.ticktext))
            return 6 * names + (36 if len(trace.x) <= MOST_WRITTEN else 12) * len(trace.x)
        if trace.type == "parcoords":
            return 100 * len(trace.dimensions)
    return 0


def heat_map(
    values: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    names: Sequence[Sequence[str]] = (),
    *,
    number: str,
    hover: str,
    marks: Sequence[Sequence[str]] = (),
) -> Any:
    """A map of numbers on both sides of 0, which are written into it where there are few columns.

    Args:
        values: by row and column; None is left empty. Rows are drawn at the numbers from 0.
        columns: their names.
        names: what each cell is called.
        number: how a number is written.
        hover: what is told of a cell; its name is `customdata`.
        marks: what is written after the number of each cell, if anything.
    """
    is_written = len(columns) <= MOST_WRITTEN
    reach = max((abs(value) for row in values for value in row if value is not None), default=0.0) or 1.0
    return go.Heatmap(
        z=values,
        x=columns,
        y=list(range(len(values))),  # two names may look alike where they are cut
        text=[
            [
                "" if one is None else (f"{round(one, 2) + 0.0:{number}}" if is_written else "") + mark
                for one, mark in zip(row, marked, strict=True)
            ]
            for row, marked in zip(values, marks or [[""] * len(columns)] * len(values), strict=True)
        ],
        texttemplate="%{text}",
        customdata=names or None,
        zmin=-reach,
        zmax=reach,
        colorscale=DIVERGING,
        xgap=1,
        ygap=1,
        showscale=not is_written,
        colorbar={"thickness": 10, "outlinewidth": 0},
        textfont={"size": 10},
        hovertemplate=f"{hover}<extra></extra>",
        hoverongaps=False,
    )
