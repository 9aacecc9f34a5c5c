"""Where layers were searched: what every block does that is passed twice, and the path of the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go

from evolve.report.pictures.registry import picture
from evolve.report.pictures.style import SERIES, figure, heat_map, text
from evolve.report.run_record import RunRecord
from merge_core.recipe.documents import layers_document

MERGE = "the merge"  # whose layers a path may go through, as those of a model


class Run(NamedTuple):
    """Consecutive layers of one model in a path: `low` to `high` - 1."""

    model: str
    low: int
    high: int


@picture(
    "blocks",
    "Blocks of layers passed twice",
    "Change of the objective when a block of layers is passed twice, by its first and last layer.",
)
def blocks(run: RunRecord) -> Any:
    """A heat map of all blocks that were scored; nothing of a search of anything else."""
    as_it_is = next(
        (trial.objective for trial in run.trials if trial.is_reference and trial.objective is not None), None
    )
    if as_it_is is None or "each_block" not in str(run.layers):
        return None
    differences: dict[tuple[int, int], float] = {}
    depth = 0
    for trial in run.complete:
        path = path_of(trial.recipe)
        if not path or path[-1].model == MERGE:  # candidates differ in their weights, too
            return None
        depth = max(depth, path[-1].high)
        if len(path) == 2:
            differences[path[1].low, path[0].high - 1] = (trial.objective or 0.0) - as_it_is
    if not differences:
        return None
    layers = [str(layer) for layer in range(depth)]
    made = figure(height=max(22 * depth, 180) + 110, xaxis_title="last layer", yaxis_title="first layer")
    made.add_trace(
        heat_map(
            [[differences.get((first, last)) for last in range(depth)] for first in range(depth)],
            layers,
            number="+.2f",
            hover="layers %{y} to %{x}: %{z:+.4f}",
        )
    )
    made.update_yaxes(autorange="reversed", showgrid=False, ticks="", tickvals=list(range(depth)), ticktext=layers)
    made.update_xaxes(type="category", showgrid=False, ticks="")
    return made


@picture("path", "The path of the best", "The model and layer at each depth of the best.")
def path(run: RunRecord) -> Any:
    """A line through the layers, in a colour for each model; nothing where layers were not searched."""
    best = run.best
    if best is None or run.layers is None:
        return None
    found = path_of(best.recipe)
    if not found:
        return None
    made = figure(height=380, xaxis_title="depth in the merged model", yaxis_title="layer of its model")
    models = list(dict.fromkeys(part.model for part in found))
    depth = 0
    for part in found:
        layers = list(range(part.low, part.high))
        made.add_trace(
            go.Scatter(
                x=list(range(depth, depth + len(layers))),
                y=layers,
                mode="lines+markers",
                name=text(part.model),
                legendgroup=str(models.index(part.model)),
                showlegend=all(trace.legendgroup != str(models.index(part.model)) for trace in made.data),
                line={"color": SERIES[models.index(part.model) % len(SERIES)], "width": 2},
            )
        )
        depth += len(layers)
    return made


def path_of(recipe: Mapping[str, Any]) -> list[Run]:
    """The runs of layers that a recipe's slices are, or its merges'; none of one that has no slices."""
    found: list[Run] = []
    for part in layers_document(recipe).get("slices", ()):
        (source, *others) = part["sources"]
        model = MERGE if others else str(source["model"])
        low, high = source["layer_range"]
        if found and (found[-1].model, found[-1].high) == (model, low):  # with other numbers from here
            found[-1] = found[-1]._replace(high=high)
        else:
            found.append(Run(model, low, high))
    return found
