"""Scores every choice of a recipe once before the optimizer starts, so that none is given up unseen."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evolve.search_loop.loop import Search
from evolve.space.genes import ChoiceGene
from evolve.space.space import Space, Vector
from evolve.trials.events import StopReason

_START = "choices_from"  # the note of where they are tried


def choice_points(space: Space, start: Vector) -> dict[str, tuple[float, ...]]:
    """The start with every choice of every gene; where several genes have choices, these change together. And without
    each of the models that may be left out.

    Args:
        space: has the genes.
        start: a point of the unit cube.

    Returns:
        Label -> point, the start itself first; nothing where no gene has choices.
    """
    choosing = {
        number: axis.gene
        for number, axis in enumerate(space.coordinates)
        if isinstance(axis.gene, ChoiceGene) and not (axis.is_place or axis.is_switch)
    }
    points = {}
    for turn in range(max((len(gene.choices) for gene in choosing.values()), default=0)):
        point = list(start)
        for number, gene in choosing.items():
            first = gene.choices.index(gene.value(start[number]))
            point[number] = gene.unit(gene.choices[(first + turn) % len(gene.choices)])
        said = ", ".join(str(gene.value(point[number])) for number, gene in choosing.items())
        points[f"start with {said}"] = tuple(point)
    for number, axis in enumerate(space.coordinates):
        if axis.is_switch:
            points[f"start without {axis.model}"] = (*start[:number], axis.gene.unit(False), *start[number + 1 :])
    return points


def score_choices(search: Search, start: Sequence[float]) -> StopReason | None:
    """Score what `choice_points` gives, of a search whose optimizer was not asked yet.

    Args:
        search: on whose budget.
        start: where the optimizer would begin. A search that goes on does so where it was begun.

    Returns:
        Why it broke off, if it did.
    """
    begun = search.journal.noted(_START)
    if begun is None and search.ledger.asked_count:
        return None
    points = choice_points(search.space, begun or start)
    if not points:
        return None
    budget = search.budget.evaluations
    if budget is not None and len(points) > budget:
        print(f"warning: {len(points)} choices are more than {budget} candidates can try", file=sys.stderr)
        return None
    search.journal.note(_START, begun or list(start))
    return search.score_points(points)
