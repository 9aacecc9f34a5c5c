"""How sure a score is: confidence intervals of task scores and of the objective, over items.

Items are the sample; tasks and weights are fixed. So the variance of the objective is the sum over tasks of
share^2 times the variance of the task's mean. Items come as contributions: numbers whose plain mean is the task's
score, as `Scorer.contributions` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Literal

from evolve.trial import ItemScores
from tasks.aggregate import oriented


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


def mean_interval(contributions: Mapping[int, float], level: float) -> Interval:
    """Mean and normal-approximation interval: mean +- z sqrt(s^2 / n), s^2 with n - 1.

    The standard error is the one that lm-eval reports for a mean, so the two agree.
    """
    return _interval(*_mean_and_variance(contributions), level)


def objective_interval(contributions: ItemScores, tasks: Sequence[TaskColumn], level: float) -> Interval | None:
    """The objective with its normal-approximation interval; None when a task that counts has no items."""
    counted = [task for task in tasks if task.weight]
    if not counted or any(not contributions.get(task.name) for task in counted):
        return None
    total = sum(task.weight for task in counted)
    value = spread = 0.0
    for task in counted:
        mean, variance_of_mean = _mean_and_variance(contributions[task.name])
        value += task.weight / total * oriented(mean, task.direction)
        spread += (task.weight / total) ** 2 * variance_of_mean
    return _interval(value, spread, level)


def _mean_and_variance(contributions: Mapping[int, float]) -> tuple[float, float]:
    """Mean, and variance of the mean; the latter infinite for a single value, which leaves it unknown."""
    values = list(contributions.values())
    return fmean(values), variance(values) / len(values) if len(values) > 1 else math.inf


def _interval(value: float, variance_of_value: float, level: float) -> Interval:
    half_width = NormalDist().inv_cdf(0.5 + level / 2.0) * math.sqrt(variance_of_value)
    return Interval(value, value - half_width, value + half_width)
