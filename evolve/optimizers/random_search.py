"""Random points, by Optuna: what every other optimizer must beat."""

from __future__ import annotations

import optuna

from evolve.optimizers.optimizer import NoOptions
from evolve.optimizers.optuna_sampler import OptunaOptimizer
from evolve.optimizers.registry import register


@register
class RandomSearch(OptunaOptimizer):
    """Points drawn uniformly from the cube, whatever they score.

    Example:
        >>> from evolve.optimizers.optimizer import SearchProblem
        >>> optimizer = RandomSearch(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> len(optimizer.ask())
        8
    """

    name = "random"
    description = "the start, then points drawn uniformly from the ranges, whatever they score"
    sampler = optuna.samplers.RandomSampler
    options = NoOptions
