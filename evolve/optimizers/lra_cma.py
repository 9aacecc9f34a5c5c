"""CMA-ES with learning rates adapted to noise, by the `cmaes` package. Nomura et al., arXiv 2401.15876."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evolve.optimizers.cmaes_strategy import CmaesStrategy
from evolve.optimizers.optimizer import Vector
from evolve.optimizers.registry import register

RESAMPLINGS = 10  # of a point outside the cube, before it is put on the border


@register
class LraCma(CmaesStrategy):
    """LRA-CMA-ES: takes smaller steps where the signal in its updates is low against the noise.

    Example:
        >>> optimizer = LraCma(SearchProblem(start=(0.5, 0.5), sigmas=(0.2, 0.2), choice_counts=(0, 0), seed=1))
        >>> len(optimizer.ask())
        6
    """

    name = "lra_cma"
    aliases = ("lra-cma", "lra-cma-es")
    description = "CMA-ES whose learning rates adapt to noise, by cmaes; `sigma` is its initial step size"
    default_population = "4 + 3 ln(genes)"

    def _begin(self, start: Vector) -> None:
        import cmaes  # takes a second, most of it for scipy.stats

        sigmas = np.array(self._problem.sigmas)
        scale = float(np.median(sigmas))
        self._strategy = cmaes.CMA(
            mean=np.array(start, dtype=float),
            sigma=scale,
            cov=np.diag((sigmas / scale) ** 2),
            bounds=np.array([[0.0, 1.0]] * len(start)),
            n_max_resampling=RESAMPLINGS,
            population_size=self._problem.population_size,
            seed=self._seed,
            lr_adapt=True,
        )

    def _vector(self, sample: Any) -> tuple[float, ...]:
        return tuple(float(unit) for unit in sample)

    def _has_converged(self, samples: Sequence[Any]) -> bool:
        return not np.isfinite(self._strategy.mean).all() or super()._has_converged(samples)
