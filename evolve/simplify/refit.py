"""The numbers of a short form moved along their gradient.

Least squares put them where a parabola around the long recipe has its least loss. A form of few numbers is some way
off, where the loss is no longer that parabola, and its gradient there knows better.
"""

from __future__ import annotations

import math

import numpy as np

from evolve.search_loop.descent import Descent
from evolve.simplify.examiner import Examiner
from evolve.simplify.long_recipe import LongRecipe
from evolve.simplify.short_form import ShortForm
from evolve.space.genes import RangeGene
from evolve.space.space import Coordinate, Vector

STEPS = 16
SLOWER = 0.5  # of the rate of the gradient start, whose first steps are farther from where they lead


def refit(examiner: Examiner, long: LongRecipe, form: ShortForm) -> ShortForm | None:
    """The form with the numbers that its gradient leads to, averaged over the way; None where there is no gradient.

    Args:
        examiner: asks for gradients, on search items.
        long: the recipe whose form it is.
        form: with the numbers to begin with.

    Raises:
        StoppedSimplifyingError: a stop was asked for.
    """
    if not form.numbers:
        return None
    mixture = form.mixture(long.sites)
    genes = [
        RangeGene(low=site.low, high=site.high)
        for site, shares in zip(long.sites, form.shares, strict=True)
        for share in shares
        for _ in share.knots
    ]
    start = [gene.unit(value) for gene, value in zip(genes, form.values, strict=True)]
    coordinates = [Coordinate(str(number), gene) for number, gene in enumerate(genes)]
    rate = SLOWER * examiner.prepared.config.start.rate
    descent = Descent(coordinates, start, range(len(genes)), rate, "gene")
    for step in range(STEPS):
        there = _at(form, genes, descent.vector)
        gradient = examiner.gradient(long.with_numbers(there.settings(long.sites)), long.cells, step)
        if not gradient:
            return None
        slopes = mixture.T @ np.array(gradient)
        descent.step([slope * (gene.high - gene.low) for slope, gene in zip(slopes, genes, strict=True)])
    return _at(form, genes, descent.average)


def _at(form: ShortForm, genes: list[RangeGene], vector: Vector) -> ShortForm:
    """With other numbers, of some hundredths of their ranges' order: finer ones are noise of the steps."""
    return form.with_values(
        [
            min(max(round(gene.value(unit), 2 - math.floor(math.log10(gene.high - gene.low))), gene.low), gene.high)
            for gene, unit in zip(genes, vector, strict=True)
        ]
    )
