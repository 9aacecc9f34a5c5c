"""What Optuna's genetic algorithms share: a first generation of our own, and batches that are generations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from optuna.samplers import BaseSampler

from evolve.optimizers.optimizer import SearchProblem
from evolve.optimizers.optuna_sampler import OptunaOptimizer
from evolve.optimizers.ranking import components

DEFAULT_POPULATION = 24


class GeneticOptimizer(OptunaOptimizer):
    """A batch is a generation; in steady state a generation is complete when as many are told.

    The first is the start, the best of the points that are known (up to half of it; they are scored already, so that
    they cost nothing where a point is the same recipe) and points drawn around the start with the genes' first standard
    deviations.

    Args:
        problem: what is searched.
        sampler: makes the sampler.
    """

    default_population = str(DEFAULT_POPULATION)
    several_objectives = True
    unordered_choices = True

    def __init__(self, problem: SearchProblem, sampler: Callable[..., BaseSampler]) -> None:
        size = problem.population_size or DEFAULT_POPULATION
        super().__init__(problem, sampler, {"seed": problem.seed, "population_size": size}, size)
        best_first = sorted(problem.known, key=lambda point: sum(components(point[1])), reverse=True)
        known = [vector for vector, _ in best_first if tuple(vector) != tuple(problem.start)][: size // 2]
        normal = np.random.default_rng(problem.seed).standard_normal((size - 1, len(problem.start)))
        around = np.clip(np.array(problem.start) + normal * np.array(problem.sigmas), 0.0, 1.0)
        self._enqueue([*known, *around[: size - 1 - len(known)].tolist()])
