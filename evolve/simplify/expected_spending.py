"""What a shorter recipe will take in item evaluations, before the search is begun."""

from __future__ import annotations

import math

from evolve.preflight.prepare import Prepared
from evolve.simplify.examiner import GRADIENTS
from evolve.simplify.long_recipe import count_numbers, searched_places
from evolve.simplify.simplification import LEGIBLE, MOST_NUMBERS, POINTS, SPACING
from evolve.space.recipe_space import RecipeSpace
from evolve.trials.step import FORWARD_AND_BACKWARD


def expected_simplification(prepared: Prepared, with_gradient: bool) -> int:
    """Item evaluations at most; 0 where the best recipe is going to be short, or is not made shorter.

    Args:
        prepared: the search.
        with_gradient: whether there are gradients.
    """
    config, space, splits = prepared.config, prepared.space, prepared.splits.values()
    if config.simplify is False or not isinstance(space, RecipeSpace):
        return 0
    numbers = count_numbers(space.recipe_of([axis.gene.value(0.5) for axis in space.coordinates]))
    least = len(searched_places(prepared))
    if numbers <= max(LEGIBLE, least) or not least:
        return 0
    most = config.simplify.numbers or min(MOST_NUMBERS, numbers // 2)
    forms = 2 + int(math.log(max(most / least, 1.0), SPACING))
    looks = forms.bit_length() + 1  # by halving, and one at the best before the optimizer
    halves = config.validation.finalists and all(len(split.held_out) > 1 for split in splits)
    deciding = sum(len(split.held_out) // 2 if halves else len(split.search) for split in splits)
    telling = sum(len(split.held_out) - len(split.held_out) // 2 for split in splits) if halves else 0
    batches = min(GRADIENTS, max(len(split.search) for split in splits)) if with_gradient else 0
    return POINTS * FORWARD_AND_BACKWARD * batches * len(splits) + looks * deciding + telling
