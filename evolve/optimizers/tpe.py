"""Tree-structured Parzen estimator, by Optuna. Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.

With several objectives: Ozaki et al., Multiobjective Tree-Structured Parzen Estimator, 2022.
"""

from __future__ import annotations

import optuna

from evolve.optimizers import Problem
from evolve.optimizers.optuna_sampler import OptunaOptimizer

DEFAULT_BATCH = 8


class Tpe(OptunaOptimizer):
    """Optuna's TPE in the unit cube; the constant liar keeps the members of a batch apart.

    Example:
        >>> optimizer = Tpe(Problem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> len(optimizer.ask())
        8
    """

    def __init__(self, problem: Problem) -> None:
        settings = {"seed": problem.seed, "multivariate": True, "constant_liar": True}
        super().__init__(problem, optuna.samplers.TPESampler, settings, problem.population_size or DEFAULT_BATCH)
