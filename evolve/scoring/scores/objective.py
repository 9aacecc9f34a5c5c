"""From task scores to one number that a search maximises.

The sign of a metric is applied here (`oriented`) and nowhere else: scorers report metrics as they are, and
optimizers only ever maximise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from evolve.scoring.errors import ScoringError, TaskError, first_line
from evolve.scoring.foreign_code import without_escape
from evolve.scoring.task_config import Direction

ObjectiveKind = Literal["weighted_sum", "worst", "geometric_mean"]
ObjectiveCall = Callable[[Mapping[str, float]], float]


@dataclass(frozen=True, slots=True)
class ObjectiveTerm:
    """A task's part in the objective."""

    weight: float
    direction: Direction


@dataclass(frozen=True, slots=True)
class Scale:
    """Which scores of a task count as 0 and as 1, in scores where more is better; `one` is above `zero`."""

    zero: float = 0.0
    one: float = 1.0


_AS_IT_IS = Scale()


@dataclass(frozen=True)
class Objective:
    """How the scores of several tasks become one.

    Attributes:
        terms: Each task's weight and direction; at least one.
        kind: `weighted_sum` is sum(weight * score) / sum(weight); `worst` the lowest score, whatever the weights;
            `geometric_mean` exp(sum(weight * log(score)) / sum(weight)) where all scores are above 0, and else the
            lowest score. That goes over into the mean without a step, and ranks what fails by how badly. Of a
            function, its name.
        scales: What is 0 and 1 of each task; a task without one counts in its own unit.
        function: The user's own: each task's score -> a number, larger is better. Scores are as the metrics give them,
            lower is better of some, but for those that have a scale.
    """

    terms: Mapping[str, ObjectiveTerm]
    kind: ObjectiveKind | str = "weighted_sum"
    scales: Mapping[str, Scale] = field(default_factory=dict)
    function: ObjectiveCall | None = None

    def value(self, scores: Mapping[str, float]) -> float:
        """The objective of one model.

        Args:
            scores: Each task's score, in its metric's own direction.

        Raises:
            TaskError: A task has no score, or there are no tasks.
            ScoringError: The user's function raises an error, or returns no number.
        """
        missing = [name for name in self.terms if name not in scores]
        if missing or not self.terms:
            raise TaskError(f"objective: no score for {', '.join(missing) or 'any task'}")
        if self.function is not None:
            return self._called(self.function, scores)
        return float(self.values({name: np.array([scores[name]]) for name in self.terms})[0])

    def values(self, scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The objective of many models, or of one under many draws of its items.

        Args:
            scores: Each task's scores, shape (n,), in its metric's own direction.

        Returns:
            Shape (n,); NaN where the user's function has no number for a draw.
        """
        if self.function is not None:
            draws = [{name: float(scores[name][place]) for name in self.terms} for place in range(_count(scores))]
            return np.array([self._drawn(self.function, draw) for draw in draws])
        rows = np.stack([self.scaled(name, scores[name]) for name in self.terms])
        weights = np.array([[term.weight] for term in self.terms.values()])
        if self.kind == "weighted_sum":
            return _weighted_mean(rows, weights)
        lowest: NDArray[np.float64] = rows.min(axis=0)
        if self.kind == "worst":
            return lowest
        positive = lowest > 0
        logarithms = np.log(np.where(positive, rows, 1.0))
        return np.where(positive, np.exp(_weighted_mean(logarithms, weights)), lowest)

    def _drawn(self, function: ObjectiveCall, scores: Mapping[str, float]) -> float:
        try:
            return self._called(function, scores)
        except ScoringError:
            return math.nan

    def _called(self, function: ObjectiveCall, scores: Mapping[str, float]) -> float:
        found = {name: float(scores[name]) for name in self.terms}
        found |= {name: float(self.scaled(name, np.array([found[name]]))[0]) for name in self.scales}
        try:
            with without_escape():
                return float(function(found))
        except Exception as error:  # code of the user's can raise anything
            shown = ", ".join(f"{name} {score:.4g}" for name, score in found.items())
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ScoringError(f"objective {self.kind} of {shown}: {reason}") from error

    def of(self, names: Sequence[str]) -> Self:
        """The same objective of some of the tasks."""
        return replace(self, terms={name: self.terms[name] for name in names})

    def scaled(self, name: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """A task's scores as they count: more is better, 0 and 1 as its scale says."""
        scale = self.scales.get(name, _AS_IT_IS)
        better = scores if self.terms[name].direction == "maximize" else -scores
        return (better - scale.zero) / (scale.one - scale.zero)

    def normalised(self, base: Mapping[str, float] | None, parents: Sequence[Mapping[str, float]]) -> Self:
        """The same objective with the base model at 0 and the best parent at 1, task by task.

        Args:
            base: The base model's score on each task; None where there is none, and the worst parent is 0.
            parents: The scores of every other parent.

        Returns:
            An objective whose scales are fixed. Where no parent gains on the base, 1 lies as far above it as the
            farthest parent lies below; where all score the same, one unit of the metric above it.

        Raises:
            TaskError: No parent was scored.
        """
        if not parents:
            raise TaskError("normalize: parents: no parent was scored, so nothing says what is 0 and what is 1")
        scales = {}
        for name, term in self.terms.items():
            scores = [oriented(parent[name], term.direction) for parent in parents]
            zero = min(scores) if base is None else oriented(base[name], term.direction)
            gain = max(scores) - zero
            span = gain if gain > 0 else (zero - min(scores) or 1.0)
            scales[name] = Scale(zero, zero + span)
        return replace(self, scales=scales)


def oriented(value: float, direction: Direction) -> float:
    """The value such that more is better."""
    return value if direction == "maximize" else -value


def _weighted_mean(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    # Relative to the largest weight, whose sum neither overflows nor loses digits, however the user scales them.
    weights = weights / weights.max()
    # Summed row by row, so that the bits depend neither on the number of columns nor on a linear algebra library.
    mean: NDArray[np.float64] = (rows * weights).sum(axis=0) / weights.sum()
    return mean


def _count(scores: Mapping[str, NDArray[np.float64]]) -> int:
    return len(next(iter(scores.values())))
