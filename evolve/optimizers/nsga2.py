"""NSGA-II, by Optuna. Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002."""

from __future__ import annotations

import numpy as np
import optuna

from evolve.optimizers.optimizer import SearchProblem
from evolve.optimizers.optuna_sampler import OptunaOptimizer, SamplerOptions
from evolve.optimizers.registry import register

DEFAULT_POPULATION = 24


class Nsga2Options(SamplerOptions):
    """Arguments of Optuna's NSGAIISampler."""


@register
class Nsga2(OptunaOptimizer):
    """A genetic algorithm for several objectives; a batch is a generation.

    The first generation is the start and points drawn around it with the genes' first standard deviations.

    Example:
        >>> optimizer = Nsga2(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1, objectives=2))
        >>> len(optimizer.ask())
        24
    """

    name = "nsga2"
    description = "Optuna's NSGA-II; the first generation is drawn around the start with `sigma`"
    default_population = str(DEFAULT_POPULATION)
    several_objectives = True
    unordered_choices = True
    options = Nsga2Options

    def __init__(self, problem: SearchProblem) -> None:
        size = problem.population_size or DEFAULT_POPULATION
        settings = {"seed": problem.seed, "population_size": size}
        super().__init__(problem, optuna.samplers.NSGAIISampler, settings, size)
        normal = np.random.default_rng(problem.seed).standard_normal((size - 1, len(problem.start)))
        around = np.clip(np.array(problem.start) + normal * np.array(problem.sigmas), 0.0, 1.0)
        self._enqueue(around.tolist())
