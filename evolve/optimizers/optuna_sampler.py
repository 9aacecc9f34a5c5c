"""Any Optuna sampler as an optimizer of points of the unit cube."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial
from pydantic import BaseModel, ConfigDict

from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.optimizers.ranking import components, feasible, lowest, ordered
from evolve.problems import ConfigError, Problem
from evolve.scoring import is_infeasible, violation_of_rank
from evolve.trials.trial import Censored, Fitness, Result

CONSTRAINT = "violation"


class SamplerOptions(BaseModel):
    """Arguments of a sampler; those that are not declared are passed on as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)


class OptunaOptimizer(Optimizer):
    """Asks a sampler of Optuna's, in a study that lives in memory.

    Genes with choices are categorical and genes with a `step` integers. Points that are known are trials of the study.
    In a constrained problem the sampler is told by how much a candidate is outside.

    Args:
        problem: what is searched; with several objectives the study has as many directions.

    Attributes:
        sampler: Optuna's class.
        default_batch: candidates asked for at a time, unless the problem says how many; in steady state one.
        conditional: whether it is asked only for the genes that count, which its sampler must know to deal with.
        models_values: whether the sampler fits the numbers that it is told. It then hears of a candidate that was
            stopped early what its items say; one that goes by order hears a number below all that were completed. And
            it hears of a candidate at the point that stands for all of the same, where genes that do not count differ.
    """

    sampler: ClassVar[type[BaseSampler]]
    default_batch: ClassVar[int] = 8
    default_population = str(default_batch)
    unordered_choices = True
    several_objectives = True
    conditional: ClassVar[bool] = False
    models_values: ClassVar[bool] = False

    def __init__(self, problem: SearchProblem) -> None:
        self._batch = 1 if problem.steady_state else problem.population_size or self.default_batch
        self._constrained = problem.constrained
        self._objectives = problem.objectives
        self._counts = problem.value_counts
        self._lowest: tuple[float, ...] | None = None  # of what was completed, by objective
        self._start = problem.start
        places = problem.path.place_count if problem.path is not None else 0
        self._choosing = [number for number, choices in enumerate(problem.choice_counts) if choices or number < places]
        self._inactive = problem.inactive if self.conditional else None
        self._canonical = problem.canonical if self.models_values else tuple
        self._names = [f"gene{index}" for index in range(len(problem.start))]
        self._distributions: dict[str, BaseDistribution] = {
            name: _distribution(choices, count)
            for name, choices, count in zip(self._names, problem.choice_counts, self._counts, strict=True)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                options = self.options.model_validate(problem.options).model_dump()
                made = self.sampler(**{**self.settings(problem), **options})
            except (TypeError, ValueError) as error:
                raise ConfigError(Problem(("options",), f"{self.sampler.__name__}: {error}")) from None
        self._study = optuna.create_study(directions=["maximize"] * problem.objectives, sampler=made)
        self._see([fitness for _, fitness in problem.known])
        for vector, fitness in problem.known:
            self._add(vector, components(fitness))
        self._enqueue([problem.start])
        self._asked: deque[list[optuna.Trial]] = deque()

    def settings(self, problem: SearchProblem) -> dict[str, Any]:
        """The sampler's arguments; the options come on top."""
        return {"seed": problem.seed}

    def _add(self, vector: Vector, fitness: tuple[float, ...]) -> None:
        """Let the study know of a point that it did not ask for."""
        attributes = {f"constraints:{CONSTRAINT}": _violation(fitness)} if self._constrained else {}
        params = self._params(self._canonical(vector))
        distributions = {name: self._distributions[name] for name in params}
        self._study.add_trial(
            create_trial(
                params=params, distributions=distributions, values=self._values(fitness), system_attrs=attributes
            )
        )

    def _enqueue(self, vectors: Sequence[Vector]) -> None:
        """These are asked for first, in order."""
        for vector in vectors:
            self._study.enqueue_trial(self._params(vector))

    def _params(self, vector: Vector) -> dict[str, float | int]:
        """Of the genes that count."""
        inactive = self._inactive(vector) if self._inactive is not None else ()
        return {
            name: min(int(unit * count), count - 1) if count else float(unit)
            for number, (name, unit, count) in enumerate(zip(self._names, vector, self._counts, strict=True))
            if number not in inactive
        }

    def _vector(self, trial: optuna.Trial) -> tuple[float, ...]:
        """The point of a trial; genes that do not count are where the search began."""
        known = trial.params
        return tuple(
            start if name not in known else (known[name] + 0.5) / count if count else float(known[name])
            for name, start, count in zip(self._names, self._start, self._counts, strict=True)
        )

    def _next(self) -> optuna.Trial:
        if self._inactive is None:
            return self._study.ask(self._distributions)
        trial = self._study.ask()
        for number in self._choosing:  # first those that say which others count
            self._suggest(trial, number)
        inactive = self._inactive(self._vector(trial))
        for number in range(len(self._names)):
            if number not in inactive:
                self._suggest(trial, number)
        return trial

    def _suggest(self, trial: optuna.Trial, number: int) -> None:
        name = self._names[number]
        trial._suggest(name, self._distributions[name])  # what `Study.ask` calls for each of its distributions

    def ask(self) -> list[tuple[float, ...]]:
        """The next batch."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that ended early, which the sampler deals with
            asked = [self._next() for _ in range(self._batch)]
        self._asked.append(asked)
        return [self._vector(trial) for trial in asked]

    def tell(self, vectors: Sequence[Vector], results: Sequence[Result]) -> None:
        """The whole batch, in the order it was asked."""
        self._see(results)
        if self.models_values:
            results = [result.estimate if isinstance(result, Censored) else result for result in results]
        numbers = ordered(results, self._lowest)
        for trial, vector, values in zip(self._asked.popleft(), vectors, numbers, strict=True):
            stands_for_others = self._params(self._canonical(vector)) != trial.params
            if values is None or stands_for_others:
                self._study.tell(trial, state=TrialState.FAIL)
                if values is not None:
                    self._add(vector, values)
                continue
            if self._constrained:
                trial.set_constraint(CONSTRAINT, _violation(values))
            self._study.tell(trial, self._values(values))

    def _see(self, results: Sequence[Result]) -> None:
        seen = feasible(results)
        self._lowest = lowest(seen if self._lowest is None else [*seen, self._lowest])

    def _values(self, fitness: tuple[float, ...]) -> list[float]:
        """What the study keeps: of the infeasible, whose violation says the rest, the lowest that was feasible."""
        if self._constrained and any(map(is_infeasible, fitness)):
            return list(self._lowest or (0.0,) * self._objectives)
        return list(fitness)


def _distribution(choices: int, count: int) -> BaseDistribution:
    if choices:
        return CategoricalDistribution(range(choices))
    return IntDistribution(0, count - 1) if count else FloatDistribution(0.0, 1.0)


def _violation(fitness: Fitness) -> float:
    return max(map(violation_of_rank, components(fitness)))
