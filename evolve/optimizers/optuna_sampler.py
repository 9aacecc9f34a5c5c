"""Any Optuna sampler as an optimizer of points of the unit cube."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial
from pydantic import BaseModel, ConfigDict

from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.problems import ConfigError, Problem
from evolve.trials.trial import Fitness


class SamplerOptions(BaseModel):
    """Arguments of a sampler; those that are not declared are passed on as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)


class OptunaOptimizer(Optimizer):
    """Asks a sampler of Optuna's for batches, in a study that lives in memory; genes with choices are categorical.

    Args:
        problem: what is searched; with several objectives the study has as many directions.
        sampler: makes the sampler.
        settings: its arguments; the options come on top.
        batch: candidates asked for at a time.
    """

    def __init__(
        self, problem: SearchProblem, sampler: Callable[..., BaseSampler], settings: dict[str, Any], batch: int
    ) -> None:
        self._batch = batch
        self._choice_counts = problem.choice_counts
        self._names = [f"gene{index}" for index in range(len(problem.start))]
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(range(count)) if count else FloatDistribution(0.0, 1.0)
            for name, count in zip(self._names, problem.choice_counts, strict=True)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                made = sampler(**{**settings, **self.options.model_validate(problem.options).model_dump()})
            except (TypeError, ValueError) as error:
                raise ConfigError(Problem(("options",), f"{sampler.__name__}: {error}")) from None
        self._study = optuna.create_study(directions=["maximize"] * problem.objectives, sampler=made)
        for vector, fitness in problem.known:
            self._study.add_trial(
                create_trial(params=self._params(vector), distributions=self._distributions, values=_values(fitness))
            )
        self._enqueue([problem.start])
        self._asked: list[optuna.Trial] = []

    def _enqueue(self, vectors: Sequence[Vector]) -> None:
        """These are asked for first, in order."""
        for vector in vectors:
            self._study.enqueue_trial(self._params(vector))

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
        """The next batch."""
        self._asked = [self._study.ask(self._distributions) for _ in range(self._batch)]
        return [self._vector(trial) for trial in self._asked]

    def tell(self, vectors: Sequence[Vector], fitness: Sequence[Fitness | None]) -> None:
        """The whole batch, in the order it was asked."""
        for trial, each in zip(self._asked, fitness, strict=True):
            if each is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, _values(each))


def _values(fitness: Fitness) -> list[float]:
    return list(fitness) if isinstance(fitness, tuple) else [fitness]
