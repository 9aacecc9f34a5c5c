"""What evolution strategies share: a distribution moved by whole populations, and begun anew when it is done."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.optimizers.ranking import costs, feasible
from evolve.trials.trial import Result


class EvolutionStrategy(Optimizer):
    """Samples from a distribution and moves it by the order of what was scored.

    It begins at the start with the genes' own step sizes. When it has converged it begins anew at the best point of all
    that are known. In steady state a sample comes from the distribution as it is, and a population is complete when as
    many have been told; one that was asked of a distribution given up since then only counts for the best.

    Args:
        problem: what is searched.
    """

    selects_half = True

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._begun = 0
        self._best: tuple[float, tuple[float, ...]] | None = None
        self._asked: deque[tuple[int, list[Any]]] = deque()  # which distribution -> what was sampled from it
        self._population: list[tuple[Any, Result]] = []
        for vector, fitness in problem.known:
            self._remember(vector, fitness)
        self._begin(problem.start)

    @abstractmethod
    def _begin(self, start: Vector) -> None:
        """A new distribution around a point; `_begun` says how many there were before."""

    @property
    @abstractmethod
    def _size(self) -> int:
        """Of a population."""

    @abstractmethod
    def _sample(self, count: int) -> list[Any]:
        """Samples, in the form that `_move` takes."""

    @abstractmethod
    def _vector(self, sample: Any) -> tuple[float, ...]:
        """The point of the unit cube that a sample stands for."""

    @abstractmethod
    def _move(self, samples: Sequence[Any], values: Sequence[float]) -> bool:
        """Move the distribution by a population and its costs. Returns whether it has converged."""

    def ask(self) -> list[tuple[float, ...]]:
        """A population; in steady state one point."""
        samples = self._sample(1 if self._problem.steady_state else self._size)
        self._asked.append((self._begun, samples))
        return [self._vector(sample) for sample in samples]

    def tell(self, vectors: Sequence[Vector], results: Sequence[Result]) -> None:
        """A batch, in the order it was asked. Only ranks count, as `ranking` has them."""
        begun, samples = self._asked.popleft()
        for vector, result in zip(vectors, results, strict=True):
            self._remember(vector, result)
        if begun != self._begun:
            return
        self._population += zip(samples, results, strict=True)
        if len(self._population) < self._size:
            return
        population, self._population = self._population, []
        values = costs([result for _, result in population])
        if values is None:
            return  # nothing was learnt; the next population comes from the same distribution
        if self._move([sample for sample, _ in population], values) and self._best is not None:
            self._begun += 1
            self._begin(self._best[1])

    def _remember(self, vector: Vector, result: Result) -> None:
        for (value,) in feasible([result]):
            if self._best is None or value > self._best[0]:
                self._best = (value, tuple(vector))
