"""What a shorter recipe will take in item evaluations, before the search is begun."""

from __future__ import annotations

import math

from evolve.preflight.prepare import Prepared
from evolve.report.short_recipe import LEGIBLE
from evolve.simplify.examiner import GRADIENTS, STEP_ITEMS
from evolve.simplify.long_recipe import numbers_in
from evolve.simplify.outline import searched_places, searched_template
from evolve.simplify.refit import STEPS
from evolve.simplify.simplification import MOST_NUMBERS, POINTS, SPACING
from evolve.trials.step import FORWARD_AND_BACKWARD


def expected_simplification(prepared: Prepared, with_gradient: bool) -> int:
    """Item evaluations at most; 0 where the best recipe is going to be short, or is not made shorter.

    Args:
        prepared: the search.
        with_gradient: whether there are gradients.
    """
    config, space, splits = prepared.config, prepared.space, prepared.splits.values()
    template = searched_template(prepared)
    if config.simplify is False or template is None or not searched_places(template):
        return 0
    numbers = numbers_in(prepared.template, space.recipe_of([axis.gene.value(0.5) for axis in space.coordinates]))
    if numbers <= LEGIBLE:
        return 0
    most = config.simplify.numbers or min(MOST_NUMBERS, numbers // 2)
    longer = _looks(LEGIBLE, most)
    looks = _looks(1, LEGIBLE) + longer
    halves = config.validation.finalists and all(len(split.held_out) > 1 for split in splits)
    deciding = sum(len(split.held_out) // 2 if halves else len(split.search) for split in splits)
    telling = sum(len(split.held_out) - len(split.held_out) // 2 for split in splits) if halves else 0
    if not with_gradient:
        return looks * deciding + telling
    at_points = POINTS * len(splits) * min(GRADIENTS, max(len(split.search) for split in splits))
    in_steps = longer * STEPS * sum(min(STEP_ITEMS, len(split.search)) for split in splits)
    return FORWARD_AND_BACKWARD * (at_points + in_steps) + looks * deciding + telling


def _looks(least: float, most: float) -> int:
    """At forms of so many numbers, by halving."""
    return (2 + int(math.log(max(most / least, 1.0), SPACING))).bit_length()
