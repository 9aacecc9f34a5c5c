"""Parents, uniform merge and best, task by task, on search items beside held-out items."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from evolve.report.formatting import format_interval
from evolve.report.intervals import Interval
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import HELD_OUT, SEARCH, figure, text
from evolve.report.run_record import RunRecord

_ROW = 13  # pixels of a bar
_GAP = 84


@picture(
    "scores",
    "Scores by task",
    "Finalists look better on the search items, because they were chosen by them; held-out items only chose among the "
    "finalists. Whiskers are 95 % intervals over items.",
)
def scores(run: RunRecord) -> Any:
    """Bars with intervals: a panel for the objective, where there are several tasks, and one for every task."""
    rows = [row for row in run.scores if row.search or row.held_out]
    if not rows:
        return None
    panels = ["", *run.tasks] if len(run.tasks) > 1 else run.tasks or [""]
    height = _ROW * 2 * len(rows) + _GAP
    made = figure(height=height * len(panels) + 40, barmode="group", bargap=0.25)
    total = height * len(panels)
    names = [text(f"{row.name} (best)" if row.role == "best" else row.name) for row in rows]
    for place, task in enumerate(panels, start=1):
        axis = "" if place == 1 else str(place)
        top = 1 - (place - 1) * height / total
        made.layout[f"yaxis{axis}"] = {
            "domain": [top - (height - _GAP) / total, top],
            "autorange": "reversed",
            "tickvals": list(range(len(rows))),  # two names may look alike where they are cut
            "ticktext": names,
            "automargin": True,
            "anchor": f"x{axis}",
        }
        made.layout[f"xaxis{axis}"] = {
            "anchor": f"y{axis}",
            "title": {"text": text(task) if task else "objective", "standoff": 2},
        }
        for kind, colour in (("held-out", HELD_OUT), ("search", SEARCH)):
            found = [(row.held_out if kind == "held-out" else row.search).get(task) for row in rows]
            if any(found):
                made.add_trace(_bars(names, found, kind, colour, axis, shown=place == 1))
    return made


def _bars(names: list[str], found: list[Interval | None], kind: str, colour: str, axis: str, shown: bool) -> Any:
    return go.Bar(
        y=list(range(len(names))),
        x=[None if interval is None else interval.value for interval in found],
        orientation="h",
        name=f"{kind} items",
        legendgroup=kind,
        showlegend=shown,
        marker={"color": colour},
        error_x=_whiskers(found),
        hovertext=[
            "" if interval is None else f"{name}, {kind}: {format_interval(interval)}"
            for name, interval in zip(names, found, strict=True)
        ],
        hoverinfo="text",
        xaxis=f"x{axis}",
        yaxis=f"y{axis}",
    )


def _whiskers(found: list[Interval | None]) -> Mapping[str, Any]:
    above = [interval.high - interval.value if interval else 0.0 for interval in found]
    below = [interval.value - interval.low if interval else 0.0 for interval in found]
    known = [math.isfinite(one) for one in above]
    return {
        "type": "data",
        "symmetric": False,
        "array": [one if there else 0.0 for one, there in zip(above, known, strict=True)],
        "arrayminus": [one if there else 0.0 for one, there in zip(below, known, strict=True)],
        "thickness": 1.2,
        "width": 3,
        "color": "#7b8794",
        "visible": any(known),
    }
