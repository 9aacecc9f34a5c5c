"""The numbers that a search found: every gene by model, kind of tensor and layer, and candidates across genes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from evolve.report.pictures.gene_places import (
    GenePlace,
    GeneRow,
    bounds_reached,
    gene_rows,
    is_number,
    mean_genes,
    numbers,
)
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import BAD, BEST, MUTED, RANKING, SEARCH, figure, heat_map, text
from evolve.report.run_record import RunRecord

TOP = 10  # candidates that are shown together
AT_LOW, AT_HIGH = "▼", "▲"
_MOST_AXES = 8
_MOST_LINES = 300


@picture(
    "genes",
    "Genes of the best",
    f"The numbers of the best candidate. {AT_LOW} and {AT_HIGH} ended at the low or high end of their range.",
)
def genes(run: RunRecord) -> Any:
    """A map across layers, or, where no gene has layers, each in its range."""
    best = run.best_candidate
    if best is None:
        return None
    values = numbers(best.genes)
    if len(values) < 2:
        return None
    rows, columns = gene_rows(values)
    return _heat_map(values, run.ranges) if len(columns) > 1 else _ranges(rows, values, run)


@picture(
    "top_genes",
    f"Genes of the {TOP} best, on average",
    "What they have in common is more than chance: a number that is the same in all of them matters.",
)
def top_genes(run: RunRecord) -> Any:
    """A map of the mean over the best candidates; where no gene has layers, `genes` shows them too."""
    best = [trial.genes for trial in run.complete[:TOP]]
    values = mean_genes(best)
    if len(best) < TOP or len(gene_rows(values)[1]) < 2:
        return None  # what a few have in common may be that they are neighbours
    return _heat_map(values, {})


@picture(
    "parallel",
    "Candidates across genes",
    "One line per candidate, coloured by its objective. Drag along an axis to select candidates.",
)
def parallel(run: RunRecord) -> Any:
    """Parallel coordinates of the genes that matter most, or else of the first ones."""
    shown = run.complete[:_MOST_LINES]
    varied = [
        name for name in mean_genes(trial.genes for trial in shown) if len({one.genes[name] for one in shown}) > 1
    ]
    names = sorted(varied, key=lambda name: -run.importances.get(name, 0.0))[:_MOST_AXES]
    if len(shown) < 3 or not names:
        return None
    objectives = [trial.objective for trial in shown]
    dimensions = [{"label": "objective", "values": objectives, "tickformat": ".3~f"}]
    dimensions += [
        {"label": _axis_label(name), "values": [trial.genes[name] for trial in shown], "tickformat": ".3~f"}
        for name in names
    ]
    made = figure(height=420)
    made.add_trace(
        go.Parcoords(
            dimensions=dimensions,
            line={"color": objectives, "colorscale": RANKING, "showscale": False},
            labelside="bottom",  # above, its second line would lie on the numbers
            labelfont={"size": 11},
        )
    )
    made.update_layout(margin={"l": 64, "r": 64, "t": 32, "b": 72})
    return made


def _heat_map(values: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> Any:
    """Rows by parameter and model, each with a heading where it has several."""
    rows, columns = gene_rows(values)
    reached = bounds_reached(values, ranges)
    sizes = Counter((row.of, row.group) for row in rows)
    labels, shown = [], list[GeneRow | None]()
    for row, before in zip(rows, [None, *rows[:-1]], strict=True):
        is_new = before is None or before.of != row.of
        if is_new and row.part:
            labels.append(f"<b>{text(row.of, 40)}</b>")
            shown.append(None)
        is_first = is_new or (before is not None and before.group != row.group)
        group = row.group if is_first and sizes[row.of, row.group] > 1 else ""  # one alone has a name that says it
        labels.append(text(" · ".join(filter(None, (group, row.part))) or row.of, 44))
        shown.append(row)
    named = [[None if row is None else row.genes.get(column) for column in columns] for row in shown]
    made = figure(height=(20 if len(labels) > 8 else 28) * len(labels) + 90)
    made.add_trace(
        heat_map(
            [[None if name is None else values[name] for name in row] for row in named],
            [text(column) for column in columns],
            [[text(str(GenePlace.read(name or "")), 200) for name in row] for row in named],
            number=".2f",
            hover="%{customdata}: %{z:.3f}",
            marks=[
                [{"low": AT_LOW, "high": AT_HIGH}.get(reached.get(name or "", ""), "") for name in row] for row in named
            ],
        )
    )
    made.update_yaxes(
        autorange="reversed",
        showgrid=False,
        ticks="",
        tickfont={"size": 11},
        tickvals=list(range(len(labels))),
        ticktext=labels,
    )
    made.update_xaxes(type="category", showgrid=False, ticks="", title={"text": "layer", "standoff": 4})
    return made


def _ranges(rows: Sequence[GeneRow], values: Mapping[str, float], run: RunRecord) -> Any:
    """Each gene in its range, which are of different units: from its low end to its high one."""
    names = [name for row in rows for name in row.genes.values() if name in run.ranges]
    reached = bounds_reached(values, run.ranges)
    best = [trial.genes for trial in run.complete[:TOP]]

    def place(name: str, value: float) -> float:
        low, high = run.ranges[name]
        return (value - low) / (high - low) if low < high else 0.5

    made = figure(height=28 * len(names) + 110)
    labels = [f"{text(str(GenePlace.read(name)), 40)} = {values[name]:.3g}" for name in names]
    ends = [[place(name, found) for found in _spread(name, best)] for name in names]
    for title, lines, line in (
        ("its range", [[0.0, 1.0]] * len(names), {"color": MUTED, "width": 2}),
        (f"the {TOP} best", ends if len(best) > 1 else [], {"color": SEARCH, "width": 7}),
    ):
        if any(lines):
            made.add_trace(
                go.Scatter(
                    x=[x for one in lines for x in (*one, None)],
                    y=[y for y, one in enumerate(lines) for _ in (*one, None)],
                    mode="lines",
                    name=title,
                    line=line,
                    hoverinfo="skip",
                )
            )
    for end, title, colour, symbol in (
        (None, "the best", BEST, "circle"),
        ("low", "at its low end", BAD, "triangle-down"),
        ("high", "at its high end", BAD, "triangle-up"),
    ):
        if shown := [name for name in names if reached.get(name) == end]:
            made.add_trace(
                go.Scatter(
                    x=[place(name, values[name]) for name in shown],
                    y=[names.index(name) for name in shown],
                    mode="markers",
                    name=title,
                    marker={"color": colour, "size": 11, "symbol": symbol},
                    hovertext=[_in_range(name, values[name], run.ranges[name]) for name in shown],
                    hoverinfo="text",
                )
            )
    made.update_yaxes(range=[len(names) - 0.5, -0.5], tickvals=list(range(len(names))), ticktext=labels)
    made.update_xaxes(tickvals=[0, 0.5, 1], ticktext=["low", "middle", "high"], range=[-0.05, 1.05])
    return made if names else None


def _spread(name: str, several: Sequence[Mapping[str, Any]]) -> list[float]:
    """The lowest and the highest value of a gene; nothing where none has it."""
    found = [one[name] for one in several if is_number(one.get(name))]
    return [min(found), max(found)] if found else []


def _in_range(name: str, value: float, ends: tuple[float, float]) -> str:
    return f"{text(str(GenePlace.read(name)), 80)}: {value:.4g} in {ends[0]:g} to {ends[1]:g}"


def _axis_label(name: str) -> str:
    """In three short lines, since axes stand close: model, kind of tensor, layers."""
    place = GenePlace.read(name)
    layers = str(replace(place, of="", part="")).removeprefix(", ")
    lines = (place.of.removeprefix("weight "), place.part.rpartition(".")[2], layers)
    return "<br>".join(text(line, 16) for line in lines if line)
