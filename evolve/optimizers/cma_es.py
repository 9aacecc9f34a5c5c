"""CMA-ES, by the `cma` package. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.optimizers.registry import register
from evolve.problems import ConfigError, Problem
from evolve.trials.trial import Fitness


def _pycma() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that matplotlib, which only its plots need, is absent
        import cma
    return cma


class CmaOptions(BaseModel):
    """pycma's options, passed on as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)


@register
class CmaEs(Optimizer):
    """Covariance matrix adaptation in the unit cube, restarted from the best point when it has converged.

    Example:
        >>> optimizer = CmaEs(SearchProblem(start=(0.5, 0.5), sigmas=(0.2, 0.2), choice_counts=(0, 0), seed=1))
        >>> vectors = optimizer.ask()
        >>> optimizer.tell(vectors, [-sum(v) for v in vectors])
    """

    name = "cma"
    aliases = ("cmaes", "cma-es")
    description = "CMA-ES, by pycma; `sigma` is its first step size"
    default_population = "4 + 3 ln(genes)"
    options = CmaOptions

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        # A generator of its own: pycma's default draws from numpy's global one, which anything may disturb.
        self._random = np.random.default_rng(problem.seed)
        self._genes = len(problem.start)
        self._best: tuple[float, tuple[float, ...]] | None = None
        self._strategy = self._begin(problem.start)

    def _begin(self, start: Vector) -> Any:
        cma = _pycma()
        # pycma does not do one dimension: a second one without influence is added.
        padding = [0.5] if self._genes == 1 else []
        sigma = float(np.median(self._problem.sigmas))
        scales = [value / sigma for value in self._problem.sigmas] + [1.0 for _ in padding]
        options: dict[str, Any] = {
            "bounds": [0.0, 1.0],
            "CMA_stds": scales,
            "seed": float("nan"),  # leaves numpy's global generator alone
            "randn": lambda *shape: self._random.standard_normal(shape),
            "verbose": -9,
            "verb_log": 0,
            "verb_disp": 0,
        }
        if self._problem.population_size is not None:
            options["popsize"] = self._problem.population_size
        unknown = set(self._problem.options) - set(cma.CMAOptions.defaults())
        if unknown:
            raise ConfigError(Problem(("options",), f"pycma has no option called {', '.join(sorted(unknown))}"))
        ours = set(options) & set(self._problem.options)
        if ours:
            raise ConfigError(Problem(("options",), f"{', '.join(sorted(ours))} is set by the search; remove it"))
        options |= self._problem.options
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycma warns of options that are meant
            try:
                return cma.CMAEvolutionStrategy([*start, *padding], sigma, options)
            except Exception as error:  # pycma checks values by using them, with whatever error that gives
                if not self._problem.options:
                    raise
                raise ConfigError(Problem(("options",), f"pycma: {error}")) from None

    def ask(self) -> list[tuple[float, ...]]:
        """One generation."""
        return [tuple(float(unit) for unit in vector[: self._genes]) for vector in self._ask_strategy()]

    def _ask_strategy(self) -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._asked = self._strategy.ask()
        return list(self._asked)

    def tell(self, vectors: Sequence[Vector], fitness: Sequence[Fitness | None]) -> None:
        """One whole generation, in the order it was asked."""
        values = [each[0] if isinstance(each, tuple) else each for each in fitness]
        scored = [value for value in values if value is not None]
        if not scored:
            return  # nothing was learnt; the next generation comes from the same distribution
        for vector, value in zip(vectors, values, strict=True):
            if value is not None and (self._best is None or value > self._best[0]):
                self._best = (value, tuple(vector))
        # Only ranks matter to CMA-ES; a failed candidate ranks below the worst.
        below = min(scored) - 1.0
        costs = [-(below if value is None else value) for value in values]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._strategy.tell(self._asked, costs)
            converged = bool(self._strategy.stop())
        if converged and self._best is not None:
            self._strategy = self._begin(self._best[1])
