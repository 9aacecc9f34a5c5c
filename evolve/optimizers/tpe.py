"""Tree-structured Parzen estimator, by Optuna. Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from evolve.optimizers import OptimizerError, Problem, Vector

DEFAULT_BATCH = 8


class Tpe:
    """Optuna's TPE in the unit cube; genes with choices are categorical to it.

    Example:
        >>> optimizer = Tpe(Problem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> len(optimizer.ask())
        8
    """

    def __init__(self, problem: Problem) -> None:
        self._batch = problem.population_size or DEFAULT_BATCH
        self._choice_counts = problem.choice_counts
        self._names = [f"gene{index}" for index in range(len(problem.start))]
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(range(count)) if count else FloatDistribution(0.0, 1.0)
            for name, count in zip(self._names, problem.choice_counts, strict=True)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                sampler = optuna.samplers.TPESampler(
                    **{"seed": problem.seed, "multivariate": True, "constant_liar": True, **problem.options}
                )
            except (TypeError, ValueError) as error:
                raise OptimizerError(f"optimizer.options: TPESampler: {error}") from None
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        for vector, objective in problem.known:
            self._study.add_trial(
                create_trial(params=self._params(vector), distributions=self._distributions, value=objective)
            )
        self._study.enqueue_trial(self._params(problem.start))
        self._asked: list[optuna.Trial] = []

    def _params(self, vector: Vector) -> dict[str, float | int]:
        return {
            name: min(int(unit * count), count - 1) if count else float(unit)
            for name, unit, count in zip(self._names, vector, self._choice_counts, strict=True)
        }

    def _vector(self, trial: optuna.Trial) -> tuple[float, ...]:
        return tuple(
            (trial.params[name] + 0.5) / count if count else float(trial.params[name])
            for name, count in zip(self._names, self._choice_counts, strict=True)
        )

    def ask(self) -> list[tuple[float, ...]]:
        """A batch; the constant liar keeps its members apart."""
        self._asked = [self._study.ask(self._distributions) for _ in range(self._batch)]
        return [self._vector(trial) for trial in self._asked]

    def tell(self, vectors: Sequence[Vector], objectives: Sequence[float | None]) -> None:
        """The whole batch, in the order it was asked."""
        for trial, objective in zip(self._asked, objectives, strict=True):
            state = TrialState.FAIL if objective is None else TrialState.COMPLETE
            self._study.tell(trial, objective, state=state)
