"""Several objectives against one another: the Pareto front."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from evolve.report.formatting import format_score
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import BEST, CANDIDATE, PARENT, figure, text
from evolve.report.run_record import RunRecord
from evolve.trials.pareto_front import pareto_front
from evolve.trials.run_directory import dump_recipe
from evolve.trials.trial import Trial

_LONGEST_RECIPE = 24  # lines
Shown = Mapping[int, Sequence[float]]
"""Number of a trial -> its objectives, as they are drawn."""


@picture(
    "front",
    "Pareto front",
    "The first two objectives of every candidate. No candidate beats a member of the front in all objectives. Hover "
    "over a member, or tap it, for its recipe.",
)
def front(run: RunRecord) -> Any:
    """Candidates, parents and the front, by the first two objectives."""
    scored = [trial for trial in run.trials if len(trial.objective_values) > 1]
    if len(scored) < 2:
        return None
    groups = run.config.get("objectives") or [["first objective"], ["second objective"]]
    costs = [len(group) == 1 and group[0] in (run.config.get("cost") or {}) for group in groups]
    names = [
        ", ".join(group) + (", lower is better" if cost else "") for group, cost in zip(groups, costs, strict=True)
    ]
    shown = {trial.number: _as_measured(trial, costs) for trial in scored}
    members = pareto_front(scored)
    numbers = {trial.number for trial in members}
    made = figure(xaxis_title=text(names[0], 60), yaxis_title=text(names[1], 60), height=520)
    others = [trial for trial in scored if trial.number not in numbers]
    for name, trials, colour, symbol in (
        ("candidates", [one for one in others if not one.is_reference], CANDIDATE, "circle"),
        ("parents and uniform merge", [one for one in others if one.is_reference], PARENT, "diamond"),
    ):
        made.add_trace(_points(name, trials, colour, symbol, shown, [_values(trial, names, shown) for trial in trials]))
    line = sorted(members, key=lambda trial: trial.objective_values[0])
    made.add_trace(
        _points("front", line, BEST, "star", shown, [_with_recipe(trial, names, shown) for trial in line], joined=True)
    )
    for axis, is_cost in zip((made.layout.xaxis, made.layout.yaxis), costs, strict=False):
        axis.autorange = "reversed" if is_cost else None  # so that better is to the right and above
    return made


def _as_measured(trial: Trial, costs: Sequence[bool]) -> list[float]:
    """The objectives of which more is better; costs as they were measured, of which less is."""
    return [-value if cost else value for value, cost in zip(trial.objective_values, costs, strict=True)]


def _points(
    name: str, trials: Sequence[Trial], colour: str, symbol: str, shown: Shown, hover: list[str], joined: bool = False
) -> Any:
    return go.Scatter(
        x=[shown[trial.number][0] for trial in trials],
        y=[shown[trial.number][1] for trial in trials],
        mode="lines+markers" if joined else "markers",
        line={"shape": "vh", "dash": "dot", "width": 1},
        marker={"color": colour, "symbol": symbol, "size": 12 if joined else 7},
        name=name,
        hovertext=hover,
        hoverinfo="text",
    )


def _values(trial: Trial, names: Sequence[str], shown: Shown) -> str:
    pairs = zip(names, shown[trial.number], strict=True)
    return "<br>".join([f"<b>{text(trial.label, 60)}</b>", *(f"{text(n, 40)}: {format_score(v)}" for n, v in pairs)])


def _with_recipe(trial: Trial, names: Sequence[str], shown: Shown) -> str:
    lines = dump_recipe(trial.recipe).splitlines()
    written = lines[:_LONGEST_RECIPE] + (
        [f"… {len(lines) - _LONGEST_RECIPE} more"] if len(lines) > _LONGEST_RECIPE else []
    )
    recipe = "<br>".join(html.escape(line, quote=False).replace(" ", "\u00a0") for line in written)
    return f"{_values(trial, names, shown)}<br><br>{recipe}"
