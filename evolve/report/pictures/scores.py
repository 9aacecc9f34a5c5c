"""Parents, uniform merge and best, task by task, on search items beside held-out items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from evolve.report.formatting import format_interval
from evolve.report.intervals import Interval
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import HELD_OUT, MUTED, WIDEST_NAME, figure, text
from evolve.report.run_record import RunRecord, ShownScores

_ROW = 22  # pixels of a model
_GAP = 56
_APART = 0.17  # of a row: held-out items above, search items below


@picture(
    "scores",
    "Scores by task",
    "With 95 % intervals over items. Search scores flatter the best, which was chosen by them; held-out items only "
    "chose among the finalists.",
)
def scores(run: RunRecord) -> Any:
    """Points with intervals: a panel for the objective, where there are several tasks, and one for every task."""
    rows = [row for row in run.ranked_scores if row.search or row.held_out]
    if len(rows) < 2:
        return None
    panels = ["", *run.tasks] if len(run.tasks) > 1 else run.tasks or [""]
    height = _ROW * len(rows) + _GAP
    total = height * len(panels)
    names = [text(_name(run, row)) for row in rows]
    made = figure(height=total + 40)
    made.update_layout(margin_b=8)
    kinds = [kind for kind in ("held_out", "search") if any(getattr(row, kind) for row in rows)]
    limits = _limits(rows, kinds)
    for place, task in enumerate(panels, start=1):
        axis = "" if place == 1 else str(place)
        top = 1 - (place - 1) * height / total
        made.layout[f"yaxis{axis}"] = {
            "domain": [top - height / total + 8 / total, top - (_GAP - 8) / total],
            "range": [len(rows) - 0.5, -0.5],
            "tickvals": list(range(len(rows))),  # two names may look alike where they are cut
            "ticktext": names,
            "automargin": True,
            "zeroline": False,
            "anchor": f"x{axis}",
        }
        made.layout[f"xaxis{axis}"] = {
            "anchor": f"y{axis}",
            "side": "top",
            "zeroline": False,
            "range": limits,
            "title": {"text": f"<b>{text(task, 60) if task else 'objective'}</b>", "standoff": 4},
        }
        for kind in kinds:
            shown = [(row, one[task]) for row, one in enumerate(getattr(row, kind) for row in rows) if task in one]
            if shown:
                colour, apart = (HELD_OUT, -_APART) if kind == kinds[0] else (MUTED, _APART)
                kind = kind.replace("_", "-")
                made.add_trace(
                    go.Scatter(
                        y=[row + apart * (len(kinds) > 1) for row, _ in shown],
                        x=[interval.value for _, interval in shown],
                        mode="markers",
                        name=f"{kind} items",
                        legendgroup=kind,
                        showlegend=place == 1,
                        marker={"color": colour, "size": 8},
                        error_x=_whiskers([interval for _, interval in shown], colour),
                        hovertext=[f"{names[row]}, {kind}: {format_interval(one)}" for row, one in shown],
                        hoverinfo="text",
                        xaxis=f"x{axis}",
                        yaxis=f"y{axis}",
                    )
                )
    return made


def _name(run: RunRecord, row: ShownScores) -> str:
    """Of the best what fits: a point of the gradient start is called by a sentence."""
    named = run.shown_name(row)
    if row.role != "best":
        return named
    return f"{named} (best)" if len(named) + len(" (best)") <= WIDEST_NAME else "best"


def _limits(rows: Sequence[ShownScores], kinds: Sequence[str]) -> list[float] | None:
    """One range for all panels, where all scores are shares."""
    values = [interval.value for row in rows for kind in kinds for interval in getattr(row, kind).values()]
    return [-0.03, 1.03] if all(0 <= value <= 1 for value in values) else None


def _whiskers(found: Sequence[Interval], colour: str) -> Mapping[str, Any]:
    above = [interval.high - interval.value for interval in found]
    below = [interval.value - interval.low for interval in found]
    known = [math.isfinite(one) for one in above]
    return {
        "type": "data",
        "symmetric": False,
        "array": [one if there else 0.0 for one, there in zip(above, known, strict=True)],
        "arrayminus": [one if there else 0.0 for one, there in zip(below, known, strict=True)],
        "thickness": 1.5,
        "width": 0,
        "color": colour,
        "visible": any(known),
    }
