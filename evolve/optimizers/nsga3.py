"""NSGA-III, by Optuna. Deb and Jain, An Evolutionary Many-Objective Optimization Algorithm, Part I, 2014."""

from __future__ import annotations

import optuna

from evolve.optimizers.optuna_genetic import GeneticOptimizer
from evolve.optimizers.optuna_sampler import SamplerOptions
from evolve.optimizers.registry import register


class Nsga3Options(SamplerOptions):
    """Arguments of Optuna's NSGAIIISampler, such as `dividing_parameter`."""


@register
class Nsga3(GeneticOptimizer):
    """A genetic algorithm for four objectives and more: by dominance, then by directions spread over the front.

    Example:
        >>> from evolve.optimizers.optimizer import SearchProblem
        >>> optimizer = Nsga3(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1, objectives=4))
        >>> len(optimizer.ask())
        24
    """

    name = "nsga3"
    description = "Optuna's NSGA-III, for many objectives; the first generation is drawn around the start with `sigma`"
    sampler = optuna.samplers.NSGAIIISampler
    options = Nsga3Options
