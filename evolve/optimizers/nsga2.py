"""NSGA-II, by Optuna. Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002."""

from __future__ import annotations

import numpy as np
import optuna

from evolve.optimizers import Problem
from evolve.optimizers.optuna_sampler import OptunaOptimizer

DEFAULT_POPULATION = 24


class Nsga2(OptunaOptimizer):
    """A genetic algorithm that keeps several objectives apart; a batch is a generation.

    The first generation is the start and points drawn around it with the genes' first standard deviations.

    Example:
        >>> optimizer = Nsga2(Problem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1, objectives=2))
        >>> len(optimizer.ask())
        24
    """

    def __init__(self, problem: Problem) -> None:
        size = problem.population_size or DEFAULT_POPULATION
        settings = {"seed": problem.seed, "population_size": size}
        super().__init__(problem, optuna.samplers.NSGAIISampler, settings, size)
        normal = np.random.default_rng(problem.seed).standard_normal((size - 1, len(problem.start)))
        around = np.clip(np.array(problem.start) + normal * np.array(problem.sigmas), 0.0, 1.0)
        self._enqueue(around.tolist())
