"""NSGA-II, by Optuna. Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002."""

from __future__ import annotations

import optuna

from evolve.optimizers.optuna_genetic import GeneticOptimizer
from evolve.optimizers.optuna_sampler import SamplerOptions
from evolve.optimizers.registry import register


class Nsga2Options(SamplerOptions):
    """Arguments of Optuna's NSGAIISampler."""


@register
class Nsga2(GeneticOptimizer):
    """A genetic algorithm for two or three objectives: by dominance, then by distance to neighbours.

    Example:
        >>> from evolve.optimizers.optimizer import SearchProblem
        >>> optimizer = Nsga2(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1, objectives=2))
        >>> len(optimizer.ask())
        24
    """

    name = "nsga2"
    description = "Optuna's NSGA-II; the first generation is drawn around the start with `sigma`"
    sampler = optuna.samplers.NSGAIISampler
    options = Nsga2Options
