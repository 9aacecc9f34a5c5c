"""CMA-ES, by the `cma` package. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from evolve.optimizers.evolution_strategy import EvolutionStrategy
from evolve.optimizers.optimizer import SearchProblem, Vector
from evolve.optimizers.registry import register
from evolve.problems import ConfigError, Problem

OURS = ("population_growth",)  # the rest is pycma's


def _pycma() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that matplotlib, which only its plots need, is absent
        import cma
    return cma


class CmaOptions(BaseModel):
    """pycma's options, passed on unchanged. The most important ones, and `population_growth` of our own:"""

    model_config = ConfigDict(extra="allow", frozen=True)

    population_growth: float = Field(
        default=1.0,
        ge=1,
        le=10,
        description="Factor on the population at every restart; 2 is IPOP-CMA-ES.",
    )
    CMA_diagonal: bool | int = Field(
        default=False,
        description="Learn only the diagonal of the covariance, for this many generations or throughout: faster for "
        "many genes that do not interact.",
    )
    CMA_active: bool = Field(default=True, description="Learn from the worst half of a population too.")


@register
class CmaEs(EvolutionStrategy):
    """Covariance matrix adaptation in the unit cube, begun anew at the best point when it has converged.

    Example:
        >>> optimizer = CmaEs(SearchProblem(start=(0.5, 0.5), sigmas=(0.2, 0.2), choice_counts=(0, 0), seed=1))
        >>> vectors = optimizer.ask()
        >>> optimizer.tell(vectors, [-sum(v) for v in vectors])
    """

    name = "cma"
    aliases = ("cmaes", "cma-es")
    description = "CMA-ES, by pycma; `sigma` is its initial step size"
    default_population = "4 + 3 ln(genes)"
    options = CmaOptions

    def __init__(self, problem: SearchProblem) -> None:
        # A generator of its own: pycma's default draws from numpy's global one, which anything may disturb.
        self._random = np.random.default_rng(problem.seed)
        self._growth = CmaOptions.model_validate(problem.options).population_growth
        self._strategy: Any = None
        self._ready: list[Any] = []  # sampled, and not asked for yet
        super().__init__(problem)

    def _begin(self, start: Vector) -> None:
        cma = _pycma()
        given = {name: value for name, value in self._problem.options.items() if name not in OURS}
        # pycma does not do one dimension: a second one without influence is added.
        padding = [0.5] if len(start) == 1 else []
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
        if self._strategy is not None and self._growth > 1:
            options["popsize"] = round(self._strategy.popsize * self._growth)
        elif self._problem.population_size is not None:
            options["popsize"] = self._problem.population_size
        unknown = set(given) - set(cma.CMAOptions.defaults())
        if unknown:
            raise ConfigError(Problem(("options",), f"pycma has no option called {', '.join(sorted(unknown))}"))
        ours = set(options) & set(given)
        if ours:
            raise ConfigError(Problem(("options",), f"{', '.join(sorted(ours))} is set by the search; remove it"))
        options |= given
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycma warns of options that are meant
            try:
                self._strategy = cma.CMAEvolutionStrategy([*start, *padding], sigma, options)
            except Exception as error:  # pycma checks values by using them, with whatever error that gives
                if not given:
                    raise
                raise ConfigError(Problem(("options",), f"pycma: {error}")) from None

    @property
    def _size(self) -> int:
        return int(self._strategy.popsize)

    def _sample(self, count: int) -> list[Any]:
        if not self._ready:  # pycma samples whole populations
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ready = list(self._strategy.ask())
        samples, self._ready = self._ready[:count], self._ready[count:]
        return samples

    def _vector(self, sample: Any) -> tuple[float, ...]:
        return tuple(float(unit) for unit in sample[: len(self._problem.start)])

    def _move(self, samples: Sequence[Any], values: Sequence[float]) -> bool:
        self._ready = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._strategy.tell(list(samples), list(values))
            return bool(self._strategy.stop())
