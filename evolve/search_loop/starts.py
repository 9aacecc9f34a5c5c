"""Where ways of the gradient may begin: as the file says, the base, equal weights of several kinds, the best parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evolve.preflight.prepare import Prepared
from evolve.search_loop.gradient_start import Start
from evolve.search_loop.loop import Search
from evolve.search_loop.references import (
    UNIFORM,
    fine_tunes,
    only_ratios_count,
    parent_point,
    tiny_weights_count,
    weights_are_all,
)
from evolve.space.genes import RangeGene
from evolve.space.space import Space, Vector, values_at
from evolve.trials.trial import Evaluation

SCALES = (0.25, 0.5, 1.0)  # of all weights, beside one n-th each
SPARSE = 0.2
"""Densities of one start: most of what fine-tunes differ in is in few entries, and few of them are in each other's way
(Yadav et al. 2023, arXiv:2306.01708, keep so many)."""
DENSE = 1.0
"""Densities of another: what is dropped at random and made up for by scaling the rest is noise, most of all in small
models. Where ranges end lower, their ends."""
MOST_STARTS = 6 + len(SCALES)  # these, one n-th each, those with sparse and dense models, the file's, base, best parent


def find_starts(search: Search, prepared: Prepared, looked: Mapping[str, Evaluation]) -> list[Start]:
    """All of them, no two in the same place.

    Args:
        search: whose objective says which parent is best.
        prepared: whose recipe has the genes.
        looked: label of a reference -> what it scored. A start that is the same model is not scored again.
    """
    space, template = prepared.space, prepared.template
    as_written, ratios = tuple(space.start(None)), only_ratios_count(space)
    starts = {as_written: Start("the file's start", as_written)}

    def add(label: str, weights: Mapping[str, float], known: Evaluation | None = None) -> None:
        vector, reached = _point(space, weights)
        known = known if reached else None
        if vector not in starts or known is not None:
            starts[vector] = Start(label if reached else f"{label}, as far as ranges reach", vector, known)

    def add_parent(label: str, model: str, weights: Mapping[str, float]) -> None:
        if (vector := parent_point(space, template, model)) is not None:
            starts[vector] = Start(label, vector, looked.get(model))
        elif weights or not ratios:  # no weights have no ratio
            add(label, weights)

    models = list(fine_tunes(space))
    if space.base_model is not None and space.base_model not in models:
        add_parent("base", space.base_model, {})
    equal = 1 / len(models)
    same = weights_are_all(space, template)
    add(f"all weights {equal:.3g}", dict.fromkeys(models, equal), looked.get(UNIFORM) if same else None)
    for scale in () if ratios else SCALES:
        add(f"all weights {scale:.3g}", dict.fromkeys(models, scale))
    weighted = any(axis.parameter == "weight" for axis in space.coordinates)
    for density, how in ((SPARSE, f"densities {SPARSE}"), (DENSE, "densities as high as they go")):
        vector, reached = _point(space, dict.fromkeys(models, equal), density)
        if vector not in starts and (reached or density == DENSE):
            starts[vector] = Start(f"all weights {equal:.3g}, {how}" if weighted else how, vector)
    scored = {model: search.objective_function.of_feasible(looked[model]) for model in models if model in looked}
    parents = {model: objective for model, objective in scored.items() if objective is not None}
    if parents:
        best = max(parents, key=lambda model: parents[model])
        add_parent(f"{template.labels()[best]} alone", best, {best: 1.0})
    if not tiny_weights_count(space):
        return list(starts.values())
    return [replace(start, is_corner=_has_no_weight(space, start.vector)) for start in starts.values()]


def _has_no_weight(space: Space, vector: Vector) -> bool:
    """Whether a weight is 0."""
    values = values_at(space.coordinates, vector)
    return any(axis.parameter == "weight" and value == 0 for axis, value in zip(space.coordinates, values, strict=True))


def _point(space: Space, weights: Mapping[str, float], density: float | None = None) -> tuple[tuple[float, ...], bool]:
    """The start with other weights of the models, as far as genes set them; and whether their ranges reach these.

    Args:
        space: what is searched.
        weights: of the models; 0 of those that are not named.
        density: of all models; None leaves theirs as they are.
    """
    point, reached = space.start(None), True
    for number, axis in enumerate(space.coordinates):
        if not isinstance(axis.gene, RangeGene):
            continue
        value = None
        if axis.parameter == "weight" and axis.model is not None:
            value = weights.get(axis.model, 0.0)
        elif axis.parameter == "density":
            value = density
        if value is not None:
            point[number] = axis.gene.unit(value)
            reached = reached and axis.gene.low <= value <= axis.gene.high
    return tuple(point), reached
