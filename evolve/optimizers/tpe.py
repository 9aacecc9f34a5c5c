"""Tree-structured Parzen estimator, by Optuna. Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011.

With several objectives: Ozaki et al., Multiobjective Tree-Structured Parzen Estimator, 2022.
"""

from __future__ import annotations

import optuna
from pydantic import Field

from evolve.optimizers.optimizer import SearchProblem
from evolve.optimizers.optuna_sampler import OptunaOptimizer, SamplerOptions
from evolve.optimizers.registry import register

DEFAULT_BATCH = 8


class TpeOptions(SamplerOptions):
    """Arguments of Optuna's TPESampler."""

    multivariate: bool = Field(default=True, description="One density for all genes, not one for each.")
    constant_liar: bool = Field(default=True, description="Keeps the members of a batch apart.")


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
    default_population = str(DEFAULT_BATCH)
    several_objectives = True
    unordered_choices = True
    conditional = True
    options = TpeOptions

    def __init__(self, problem: SearchProblem) -> None:
        size = problem.population_size or DEFAULT_BATCH
        # Genes that count together have a density of their own; one for all would be of those that always count.
        grouped = problem.inactive is not None and TpeOptions.model_validate(problem.options).multivariate
        settings = {"seed": problem.seed, "group": grouped}
        super().__init__(problem, optuna.samplers.TPESampler, settings, size)
