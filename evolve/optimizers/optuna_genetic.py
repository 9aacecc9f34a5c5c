"""What Optuna's genetic algorithms share: a first generation of our own, and batches that are generations."""

from __future__ import annotations

from typing import Any

import numpy as np

from evolve.optimizers.optimizer import SearchProblem
from evolve.optimizers.optuna_sampler import OptunaOptimizer
from evolve.optimizers.ranking import components


class GeneticOptimizer(OptunaOptimizer):
    """A batch is a generation; in steady state a generation is complete when as many are told.

    The first is the start, the best of the points that are known (up to half of it; they are scored already, so that
    they cost nothing where a point is the same recipe) and points drawn around the start with the genes' first standard
    deviations.

    Args:
        problem: what is searched.
    """

    default_batch = 24
    default_population = str(default_batch)

    def __init__(self, problem: SearchProblem) -> None:
        super().__init__(problem)
        size = self._size(problem)
        best_first = sorted(problem.known, key=lambda point: sum(components(point[1])), reverse=True)
        known = [vector for vector, _ in best_first if tuple(vector) != tuple(problem.start)][: size // 2]
        normal = np.random.default_rng(problem.seed).standard_normal((size - 1, len(problem.start)))
        around = np.clip(np.array(problem.start) + normal * np.array(problem.sigmas), 0.0, 1.0)
        self._enqueue([*known, *around[: size - 1 - len(known)].tolist()])

    def settings(self, problem: SearchProblem) -> dict[str, Any]:
        """With the size of a generation, in steady state too."""
        return {"seed": problem.seed, "population_size": self._size(problem)}

    def _size(self, problem: SearchProblem) -> int:
        return problem.population_size or self.default_batch
