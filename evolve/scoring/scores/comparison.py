"""Whether one model is really better than another, and how sure an objective is: bootstraps over items.

Items are the sample; tasks, weights and scales are fixed. Items come as contributions: numbers whose plain mean is
the task's score, as `Scorer.contributions` gives them. Items are drawn with replacement within each task, the
tasks' scores are taken anew, and then the objective, so any objective is served (Efron & Tibshirani 1993, chapters
8 and 13: stratified, percentile interval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.scoring.errors import TaskError
from evolve.scoring.scores.objective import Objective

# Bounds the memory of the bootstrap: so many random numbers at a time.
_DRAWS_AT_A_TIME = 2_000_000

Contributions = Mapping[str, Mapping[int, float]]
"""Task name -> item id -> contribution."""


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


def paired_difference(
    first: Contributions,
    second: Contributions,
    objective: Objective,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models on the items that both were scored on; both keep their values on every drawn item.

    Args:
        first: Per task, per item, the first model's `Scorer.contributions`.
        second: The second model's.
        objective: What the tasks' scores become.
        confidence: Coverage of the interval, in (0, 1).
        resamples: How many bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The difference of the objectives with its interval.

    Raises:
        TaskError: A task has no item that both models were scored on.
    """
    pairs: dict[str, NDArray[np.float64]] = {}
    for name in objective.terms:
        ours, theirs = first.get(name, {}), second.get(name, {})
        common = sorted(ours.keys() & theirs.keys())
        if not common:
            raise TaskError(f"comparison: the two models share no scored item of task {name!r}")
        pairs[name] = np.array([[ours[item] for item in common], [theirs[item] for item in common]])
    observed = {name: pair.mean(axis=1) for name, pair in pairs.items()}
    drawn = _resampled_means(pairs, resamples, seed)
    ours_minus_theirs = np.subtract(
        *(objective.values({name: means[model] for name, means in drawn.items()}) for model in (0, 1))
    )
    difference = float(np.subtract(*objective.values(observed)))
    low, high = _percentiles(ours_minus_theirs, confidence)
    return PairedDifference(difference, low, high, sum(pair.shape[1] for pair in pairs.values()))


def bootstrap_interval(
    contributions: Contributions,
    objective: Objective,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The interval of one model's objective.

    Raises:
        TaskError: A task has no item.
    """
    missing = [name for name in objective.terms if not contributions.get(name)]
    if missing:
        raise TaskError(f"objective: no item of {', '.join(missing)} was scored")
    values = {name: np.array([list(contributions[name].values())]) for name in objective.terms}
    drawn = _resampled_means(values, resamples, seed)
    return _percentiles(objective.values({name: means[0] for name, means in drawn.items()}), confidence)


def _resampled_means(
    values: Mapping[str, NDArray[np.float64]], resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Task -> means, shape (models, resamples), over samples with replacement of the items.

    Args:
        values: Task -> shape (models, items); a draw takes the same items for every model.
        resamples: How many samples.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    return {name: _means(values[name], resamples, generator) for name in sorted(values)}


def _means(values: NDArray[np.float64], resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    items = values.shape[1]
    rows = max(1, _DRAWS_AT_A_TIME // items)
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    blocks = [values[:, generator.integers(items, size=(size, items))].mean(axis=2) for size in sizes]
    return np.concatenate(blocks, axis=1)


def _percentiles(samples: Sequence[float] | NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)
