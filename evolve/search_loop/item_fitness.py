"""Fitness as a weighted mean over items, which a race can estimate from some of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.scoring import Direction, Objective, Signal
from evolve.trials.trial import Evaluation

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ItemFitness:
    """Fitness = offset + unit * sum over items of share * value, with values in [0, 1], larger better.

    Attributes:
        items: task and item id of each.
        groups: index of each item's task, shape (items,).
        shares: parts in the sum, shape (items,), positive, adding up to 1.
        unit: what a mean value of 1 is worth.
        offset: what a mean value of 0 is worth.
        signals: task -> what of an item counts.
        directions: task -> where its metric should go.
    """

    items: tuple[tuple[str, int], ...]
    groups: NDArray[np.intp]
    shares: Floats
    unit: float
    offset: float
    signals: Mapping[str, Signal]
    directions: Mapping[str, Direction]

    @classmethod
    def of(
        cls, objective: Objective, signals: Mapping[str, Signal], items: Mapping[str, tuple[int, ...]]
    ) -> ItemFitness:
        """What an optimizer is told of scores on these items.

        Args:
            objective: a weighted sum, with the scales that fitness is told on.
            signals: task -> what of an item counts.
            items: task -> ids.
        """
        total = sum(term.weight for term in objective.terms.values())
        names = list(objective.terms)
        worth, offset = {}, 0.0
        for name in names:
            term = objective.terms[name]
            # A mean value of 0, of 1, and what they count as.
            ends = np.array([0.0, 1.0]) - _shift(signals[name], term.direction)
            zero, one = objective.scaled(name, ends if term.direction == "maximize" else -ends)
            worth[name] = float(one - zero) * term.weight / total
            offset += float(zero) * term.weight / total
        unit = math.fsum(worth.values())
        return cls(
            items=tuple((name, item) for name in names for item in items[name]),
            groups=np.repeat(np.arange(len(names)), [len(items[name]) for name in names]),
            shares=np.concatenate([np.full(len(items[name]), worth[name] / unit / len(items[name])) for name in names]),
            unit=unit,
            offset=offset,
            signals=signals,
            directions={name: objective.terms[name].direction for name in names},
        )

    def fitness(self, mean: float) -> float:
        """What a mean value comes to."""
        return self.offset + self.unit * mean

    def values(self, evaluation: Evaluation) -> Floats:
        """The items' values, shape (items,); NaN where an item was not scored."""
        return np.array([self._value(evaluation, name, item) for name, item in self.items])

    def _value(self, evaluation: Evaluation, name: str, item: int) -> float:
        score = evaluation.scores.get(name, {}).get(item, math.nan)
        kind, direction = self.signals[name], self.directions[name]
        better = float(score if direction == "maximize" else -score)
        if kind != "metric":
            signal = evaluation.signals.get(name, {}).get(item, math.nan)
            better = signal if kind == "margin" else (better + signal) / 2
        return better + _shift(kind, direction)


def _shift(signal: Signal, direction: Direction) -> float:
    """What is added to an item's value, which is negative where a metric in [0, 1] should go down."""
    return 0.0 if direction == "maximize" else {"metric": 1.0, "mixed": 0.5, "margin": 0.0}[signal]
