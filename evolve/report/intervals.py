"""How sure a score is: confidence intervals of task scores and of the objective, over items.

Items are the sample; tasks and weights are fixed. Items come as contributions: numbers whose plain mean is the task's
score, as `Scorer.contributions` gives them. An interval of shares never leaves [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Literal

import numpy as np

from evolve.scoring import Objective, ObjectiveTerm, bootstrap_interval


@dataclass(frozen=True)
class TaskColumn:
    """What a report needs to know of one task.

    Attributes:
        name: as in trials.
        metric: as the user would spell it.
        direction: whether the metric should go up or down.
        weight: part in the objective; a task of weight 0 is shown and does not count.
    """

    name: str
    metric: str
    direction: Literal["maximize", "minimize"] = "maximize"
    weight: float = 1.0


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; unbounded when there are too few items to know."""

    value: float
    low: float = -math.inf
    high: float = math.inf

    def shifted(self, by: float) -> Interval:
        """The same with a number added that is known exactly."""
        return Interval(self.value + by, self.low + by, self.high + by)


def weighted_sum(tasks: Sequence[TaskColumn]) -> Objective:
    """The objective of a search that says nothing else: the weighted mean of the tasks that count."""
    return Objective({task.name: ObjectiveTerm(task.weight, task.direction) for task in tasks if task.weight})


def mean_interval(contributions: Mapping[int, float], level: float) -> Interval:
    """Mean and interval of a task's score.

    Items that are right or wrong: Wilson's score interval (Wilson 1927), which stays within [0, 1] and does not shrink
    to nothing when all are right. Other items: mean +- z sqrt(s^2 / n), s^2 with n - 1, whose standard error is the one
    that lm-eval reports, cut at 0 and 1 where every item lies between them.
    """
    values = list(contributions.values())
    count, mean = len(values), fmean(values)
    if count < 2:
        return Interval(mean)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    if set(values) <= {0.0, 1.0}:
        shrunk = 1.0 / (1.0 + z * z / count)
        center = shrunk * (mean + z * z / (2 * count))
        half = shrunk * z * math.sqrt(mean * (1 - mean) / count + (z / (2 * count)) ** 2)
        # At 0 and 1 the formula gives them up to rounding.
        return Interval(mean, center - half if mean > 0 else 0.0, center + half if mean < 1 else 1.0)
    half = z * math.sqrt(variance(values) / count)
    if all(0.0 <= value <= 1.0 for value in values):
        return Interval(mean, max(mean - half, 0.0), min(mean + half, 1.0))
    return Interval(mean, mean - half, mean + half)


def objective_interval(
    contributions: Mapping[str, Mapping[int, float]], objective: Objective, level: float, seed: int = 0
) -> Interval | None:
    """The objective with its interval; None when a task that counts has no items.

    A weighted sum combines the tasks' intervals by the distances of their ends from the means, which keeps it between
    the sums of the ends (Zou & Donner 2008, "MOVER"); for symmetric intervals that is the sum of variances. Any other
    objective is bootstrapped.
    """
    if not objective.terms or any(not contributions.get(name) for name in objective.terms):
        return None
    tasks = {name: mean_interval(contributions[name], level) for name in objective.terms}
    value = objective.value({name: interval.value for name, interval in tasks.items()})
    if any(math.isinf(interval.high) for interval in tasks.values()):
        return Interval(value)
    if objective.kind != "weighted_sum":
        return Interval(value, *bootstrap_interval(contributions, objective, confidence=level, seed=seed))
    total = sum(term.weight for term in objective.terms.values())
    below = above = 0.0
    for name, interval in tasks.items():
        share = objective.terms[name].weight / total
        ends = objective.scaled(name, np.array([interval.low, interval.value, interval.high]))
        low, middle, high = sorted(ends.tolist())
        below += (share * (middle - low)) ** 2
        above += (share * (high - middle)) ** 2
    return Interval(value, value - math.sqrt(below), value + math.sqrt(above))
