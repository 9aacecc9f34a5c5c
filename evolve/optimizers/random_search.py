"""Random points, by Optuna: what every other optimizer must beat."""

from __future__ import annotations

import optuna

from evolve.optimizers.optimizer import NoOptions, SearchProblem
from evolve.optimizers.optuna_sampler import OptunaOptimizer
from evolve.optimizers.registry import register

DEFAULT_BATCH = 8


@register
class RandomSearch(OptunaOptimizer):
    """Points drawn uniformly from the cube, whatever they score.

    Example:
        >>> optimizer = RandomSearch(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> len(optimizer.ask())
        8
    """

    name = "random"
    description = "points drawn uniformly from the ranges after the start, whatever they score"
    default_population = str(DEFAULT_BATCH)
    several_objectives = True
    unordered_choices = True
    options = NoOptions

    def __init__(self, problem: SearchProblem) -> None:
        settings = {"seed": problem.seed}
        super().__init__(problem, optuna.samplers.RandomSampler, settings, problem.population_size or DEFAULT_BATCH)
