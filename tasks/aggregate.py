"""From task scores to one objective, and whether one model is really better than another.

The sign of a metric is applied here (`oriented`) and nowhere else: scorers report metrics as they are, and
optimizers only ever maximise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.errors import TaskError
from tasks.task_config import Direction

# Bounds the memory of the bootstrap: so many random numbers at a time.
_DRAWS_AT_A_TIME = 4_000_000


@dataclass(frozen=True, slots=True)
class ObjectiveTerm:
    """A task's part in the objective."""

    weight: float
    direction: Direction


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better the first model is than the second, in units of the objective.

    Attributes:
        difference: First minus second; positive means the first is better, whatever the metrics' directions.
        low: Lower end of the confidence interval.
        high: Upper end.
        items: How many items were compared, over all tasks.
    """

    difference: float
    low: float
    high: float
    items: int


def oriented(value: float, direction: Direction) -> float:
    """Return the value such that more is better."""
    return value if direction == "maximize" else -value


def objective(scores: Mapping[str, float], terms: Mapping[str, ObjectiveTerm]) -> float:
    """Return the weighted mean of the task scores, each such that more is better.

    Args:
        scores: Each task's score, in its metric's own direction.
        terms: Each task's weight and direction.

    Returns:
        sum(weight * oriented score) / sum(weight).

    Raises:
        TaskError: A task has no score, or there are no tasks.
    """
    missing = [name for name in terms if name not in scores]
    if missing or not terms:
        raise TaskError(f"objective: no score for {', '.join(missing) or 'any task'}")
    total = sum(term.weight * oriented(scores[name], term.direction) for name, term in terms.items())
    return total / sum(term.weight for term in terms.values())


def paired_difference(
    first: Mapping[str, Mapping[int, float]],
    second: Mapping[str, Mapping[int, float]],
    terms: Mapping[str, ObjectiveTerm],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models on the items that both were scored on.

    Stratified paired bootstrap: within each task, items are drawn with replacement, and both models keep
    their values on the drawn items (Efron & Tibshirani 1993, chapter 8, percentile interval).

    Args:
        first: Per task, per item, the first model's `Scorer.contributions`.
        second: The second model's.
        terms: Each task's weight and direction.
        confidence: Coverage of the interval, in (0, 1).
        resamples: How many bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The difference of the objectives with its interval.

    Raises:
        TaskError: A task has no item that both models were scored on.
    """
    total_weight = sum(term.weight for term in terms.values())
    resampled: NDArray[np.float64] = np.zeros(resamples)
    difference, items = 0.0, 0
    generator = np.random.default_rng(seed)
    for name, term in sorted(terms.items()):
        ours, theirs = first.get(name, {}), second.get(name, {})
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            raise TaskError(f"comparison: the two models share no scored item of task {name!r}")
        sign = oriented(term.weight / total_weight, term.direction)
        deltas = sign * (np.array([ours[item] for item in common]) - np.array([theirs[item] for item in common]))
        difference += float(deltas.mean())
        items += len(common)
        resampled += _resampled_means(deltas, resamples, generator)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return PairedDifference(difference, float(low), float(high), items)


def _resampled_means(
    values: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the means, shape (resamples,), of samples with replacement of the values."""
    rows = max(1, _DRAWS_AT_A_TIME // len(values))
    means = [
        values[generator.integers(len(values), size=(min(rows, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(means)
