"""The numbers that a search found: every gene by model, kind of tensor and layer, and candidates across genes.

Genes that are layers of a path mean nothing as numbers: these have a picture of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from evolve.report.pictures.gene_places import GeneGrid, GenePlace, mean_genes
from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import figure, heat_map, text
from evolve.report.run_record import RunRecord

TOP = 10  # candidates whose mean is shown
_MOST_AXES = 8
_MOST_LINES = 300


@picture("genes", "Genes of the best", "The numbers of the best candidate, by model and kind of tensor, across layers.")
def genes(run: RunRecord) -> Any:
    """A heat map of the best; of the best candidate where a parent or the uniform merge is better."""
    best = run.best if run.best is not None and run.best.genes else next(iter(run.complete), None)
    return None if best is None or run.layers is not None else _heat_map(best.genes)


@picture(
    "top_genes",
    f"Genes of the {TOP} best, on average",
    "What they have in common is more than chance: a number that is the same in all of them matters.",
)
def top_genes(run: RunRecord) -> Any:
    """A heat map of the mean over the best candidates."""
    best = [trial.genes for trial in run.complete[:TOP]]
    return None if len(best) < 2 or run.layers is not None else _heat_map(mean_genes(best))


@picture(
    "parallel",
    "Candidates across genes",
    "One line per candidate, coloured by its objective. Drag along an axis to select candidates.",
)
def parallel(run: RunRecord) -> Any:
    """Parallel coordinates of the genes that matter most, or else of the first ones."""
    shown = run.complete[:_MOST_LINES]
    ranked = sorted(run.importances, key=lambda name: -run.importances[name])
    known = [name for name in (ranked or mean_genes(trial.genes for trial in shown)) if _is_varied(shown, name)]
    names = known[:_MOST_AXES]
    if len(shown) < 3 or not names or run.layers is not None:
        return None
    objectives = [trial.objective for trial in shown]
    dimensions = [{"label": "objective", "values": objectives}]
    dimensions += [{"label": _axis_label(name), "values": [trial.genes[name] for trial in shown]} for name in names]
    made = figure(height=460)
    made.add_trace(
        go.Parcoords(
            dimensions=dimensions,
            line={"color": objectives, "colorscale": "Viridis", "showscale": False},
            labelangle=-20,
            labelfont={"size": 11},
        )
    )
    made.update_layout(margin={"l": 64, "r": 56, "t": 108, "b": 24})
    return made


def _heat_map(values: Mapping[str, Any]) -> Any:
    grid = GeneGrid.of(values)
    if not grid.rows:
        return None
    rows = [text(row, 44) for row in grid.rows]
    made = figure(height=max(22 * len(rows), 60) + 110, xaxis_title="layer")
    made.add_trace(
        heat_map(
            grid.values,
            [text(column) for column in grid.columns],
            rows,
            number=".2f",
            hover="%{text}, layer %{x}: %{z}",
        )
    )
    made.update_yaxes(autorange="reversed", tickfont={"size": 11}, tickvals=list(range(len(rows))), ticktext=rows)
    made.update_xaxes(type="category")
    return made


def _is_varied(trials: Any, name: str) -> bool:
    values = [trial.genes.get(name) for trial in trials]
    return all(isinstance(value, int | float) for value in values) and len(set(values)) > 1


def _axis_label(name: str) -> str:
    place = GenePlace.of(name)
    layers = place.columns[0] if len(place.columns) == 1 else f"{place.columns[0]}-{place.columns[-1]}"
    return text(f"{place.row.removeprefix('weight ')}, {layers}", 22)
