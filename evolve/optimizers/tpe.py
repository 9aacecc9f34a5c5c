"""Tree-structured Parzen estimator, by Optuna. Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.

With several objectives: Ozaki et al., Multiobjective Tree-Structured Parzen Estimator, 2022.
"""

from __future__ import annotations

from typing import Any

import optuna
from pydantic import Field

from evolve.optimizers.optimizer import SearchProblem
from evolve.optimizers.optuna_sampler import OptunaOptimizer, SamplerOptions
from evolve.optimizers.registry import register


class TpeOptions(SamplerOptions):
    """Arguments of Optuna's TPESampler."""

    multivariate: bool = Field(default=True, description="One joint density for all genes, not one per gene.")
    constant_liar: bool = Field(default=True, description="Keep the candidates of a batch apart.")


@register
class Tpe(OptunaOptimizer):
    """Optuna's TPE in the unit cube.

    Example:
        >>> optimizer = Tpe(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> len(optimizer.ask())
        8
    """

    name = "tpe"
    description = "Optuna's tree-structured Parzen estimator"
    sampler = optuna.samplers.TPESampler
    conditional = True
    options = TpeOptions

    def settings(self, problem: SearchProblem) -> dict[str, Any]:
        """Genes that count together have a density of their own; one for all would be of those that always count."""
        grouped = problem.inactive is not None and TpeOptions.model_validate(problem.options).multivariate
        return {"seed": problem.seed, "group": grouped}
