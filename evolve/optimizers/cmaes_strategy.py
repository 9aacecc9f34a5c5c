"""What the strategies of the `cmaes` package share. Nomura and Shibata, cmaes, arXiv 2402.01373."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evolve.optimizers.evolution_strategy import EvolutionStrategy
from evolve.optimizers.optimizer import SearchProblem
from evolve.problems import ConfigError, Problem

SMALLEST_SPREAD = 1e-5  # of a population, as a share of a range
SMALLEST_POPULATION = 4  # cmaes divides by zero below


class CmaesStrategy(EvolutionStrategy):
    """What the strategies of the `cmaes` package share.

    Raises:
        ConfigError: the population is too small.
    """

    def __init__(self, problem: SearchProblem) -> None:
        size = problem.population_size
        if size is not None and size < SMALLEST_POPULATION:
            message = f"{self.name} needs at least {SMALLEST_POPULATION}, got {size}"
            raise ConfigError(Problem(("population_size",), message))
        self._strategy: Any = None
        super().__init__(problem)

    @property
    def _seed(self) -> int:
        """Of the distribution that is begun now, in the range that numpy's older generator takes."""
        return int(np.random.SeedSequence((self._problem.seed, self._begun)).generate_state(1)[0])

    @property
    def _size(self) -> int:
        return int(self._strategy.population_size)

    def _sample(self, count: int) -> list[Any]:
        return [self._strategy.ask() for _ in range(count)]

    def _move(self, samples: Sequence[Any], values: Sequence[float]) -> bool:
        ranks = np.unique(values, return_inverse=True)[1].astype(float)  # penalties are in the unit of what is told
        try:
            with np.errstate(all="ignore"):
                self._strategy.tell(list(zip(samples, ranks.tolist(), strict=True)))
                return self._has_converged(samples)
        except np.linalg.LinAlgError:  # the distribution has shrunk to a point
            return True

    def _has_converged(self, samples: Sequence[Any]) -> bool:
        """Whether its continuous genes differ by less than is written into a recipe; steps and choices never converge.

        The package's own tests wait for far smaller spreads, and for scores that are equal to the last digit.
        """
        continuous = [gene for gene, count in enumerate(self._problem.value_counts) if not count]
        if not continuous:
            return False
        points = np.array([self._vector(sample) for sample in samples])[:, continuous]
        return bool(np.ptp(points, axis=0).max() < SMALLEST_SPREAD or self._strategy.should_stop())
