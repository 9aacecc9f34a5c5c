"""A low-discrepancy sequence, by Optuna. Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, 2012."""

from __future__ import annotations

from typing import Any, Literal

import optuna
from pydantic import Field

from evolve.optimizers.optimizer import SearchProblem
from evolve.optimizers.optuna_sampler import OptunaOptimizer, SamplerOptions
from evolve.optimizers.registry import register


class QmcOptions(SamplerOptions):
    """Arguments of Optuna's QMCSampler."""

    qmc_type: Literal["sobol", "halton"] = Field(default="sobol", description="The quasi-random sequence.")
    scramble: bool = Field(
        default=True, description="Randomise the sequence by the seed; otherwise all seeds give the same points."
    )


@register
class Qmc(OptunaOptimizer):
    """Points that fill the cube evenly, whatever they score.

    Example:
        >>> optimizer = Qmc(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> len(optimizer.ask())
        8
    """

    name = "qmc"
    aliases = ("sobol",)
    description = "the start, then points that fill the ranges evenly, whatever they score"
    sampler = optuna.samplers.QMCSampler
    options = QmcOptions

    def settings(self, problem: SearchProblem) -> dict[str, Any]:
        """Genes with choices are drawn by themselves, of which Optuna would warn."""
        return {"seed": problem.seed, "warn_independent_sampling": False}
