"""Bayesian optimization by a Gaussian process, by Optuna. Jones et al., Efficient Global Optimization, 1998.

Constraints: Gardner et al., Bayesian Optimization with Inequality Constraints, 2014. Several objectives: Daulton et
al., Differentiable Expected Hypervolume Improvement, arXiv 2006.05078.
"""

from __future__ import annotations

import optuna
from pydantic import Field

from evolve.optimizers.optuna_sampler import OptunaOptimizer, SamplerOptions
from evolve.optimizers.registry import register


class GpOptions(SamplerOptions):
    """Arguments of Optuna's GPSampler."""

    n_startup_trials: int = Field(
        default=10, ge=1, description="Points, known ones included, before the process is first fitted."
    )
    deterministic_objective: bool = Field(default=False, description="Treat scores as free of noise.")


@register
class Gp(OptunaOptimizer):
    """Optuna's GPSampler in the unit cube: fits scores, proposes where the expected improvement is largest.

    Each proposal takes longer than the last, by the cube of the number of trials: for some 200 trials at most.

    Example:
        >>> from evolve.optimizers.optimizer import SearchProblem
        >>> optimizer = Gp(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> len(optimizer.ask())
        4
    """

    name = "gp"
    description = "Optuna's Gaussian process, for up to about 200 candidates"
    sampler = optuna.samplers.GPSampler
    default_batch = 4
    default_population = str(default_batch)
    models_values = True
    options = GpOptions
