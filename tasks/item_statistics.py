"""From one number per item to a task's score and its standard error.

Each metric keeps one float per item, so that racing may stop anywhere, a journal can hold it, and two models
can be compared item by item. How the floats become the score is the metric's business: a plain mean, a
perplexity, or any function of the list.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.errors import ScoringError
from tasks.scorer import TaskScore


class ItemStatistic(Protocol):
    """What a metric does with its items."""

    def item_value(self, raw: Any) -> float:
        """Return the float that is kept for what the task's `process_results` gave for an item.

        Raises:
            TypeError: It is not of the kind that this statistic keeps.
        """

    def score(self, values: Mapping[int, float]) -> float:
        """Return the task's score."""

    def contributions(self, values: Mapping[int, float]) -> dict[int, float]:
        """Return one number per item, whose mean is the score."""


@dataclass(frozen=True, slots=True)
class MeanOfItems:
    """A metric that is a number per item and whose score is their mean."""

    mean: Callable[[Sequence[float]], Any]

    def item_value(self, raw: Any) -> float:
        return _number(raw)

    def score(self, values: Mapping[int, float]) -> float:
        return float(self.mean([values[item] for item in sorted(values)]))

    def contributions(self, values: Mapping[int, float]) -> dict[int, float]:
        return dict(values)


@dataclass(frozen=True, slots=True)
class FunctionOfItems:
    """A metric that is a number per item and whose score is some other function of them, a median say.

    Contributions are jackknife pseudo-values (Tukey 1958), shifted so that their mean is the score.
    """

    function: Callable[[Sequence[float]], Any]

    def item_value(self, raw: Any) -> float:
        return _number(raw)

    def score(self, values: Mapping[int, float]) -> float:
        return float(self.function([values[item] for item in sorted(values)]))

    def contributions(self, values: Mapping[int, float]) -> dict[int, float]:
        items, score = sorted(values), self.score(values)
        if len(items) == 1:
            return {items[0]: score}
        without = np.array([self.score({other: values[other] for other in items if other != item}) for item in items])
        pseudo = score + (len(items) - 1) * (without.mean() - without)
        return dict(zip(items, pseudo.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class LogLikelihoodOfItems:
    """Perplexities and bits per byte: functions of sum(log-likelihood) / sum(weight).

    The value of an item is its negative log-likelihood in nats, so lower is better, as for the metric itself.

    Attributes:
        aggregation: The task's own, on (log-likelihood, weight) pairs, or on log-likelihoods if not weighted.
        weight_of: The weight (words, bytes) of an item; None weighs items equally.
        exponential: Whether the score is exp(nats per weight), a perplexity, or linear in it.
    """

    aggregation: Callable[[Sequence[Any]], Any]
    weight_of: Callable[[int], float] | None
    exponential: bool

    def item_value(self, raw: Any) -> float:
        if self.weight_of is None:
            return -_number(raw)
        if not isinstance(raw, tuple | list) or len(raw) != 2:
            raise TypeError(f"expected a pair of log-likelihood and weight, got {raw!r}")
        return -_number(raw[0])

    def score(self, values: Mapping[int, float]) -> float:
        items = sorted(values)
        raw: list[Any] = [-values[item] for item in items]
        if self.weight_of is not None:
            raw = [(value, self.weight_of(item)) for value, item in zip(raw, items, strict=True)]
        try:
            return float(self.aggregation(raw))
        except OverflowError as error:
            raise ScoringError("the perplexity is too large for a number; the model is broken") from error

    def contributions(self, values: Mapping[int, float]) -> dict[int, float]:
        items, score = sorted(values), self.score(values)
        nats = np.array([values[item] for item in items])
        weights = np.array([1.0 if self.weight_of is None else self.weight_of(item) for item in items])
        rate = nats.sum() / weights.sum()
        # Linearised ratio: d(rate) for each item, times the derivative of the score by the rate.
        slope = score if self.exponential else (score / rate if rate else 0.0)
        influence = (nats - rate * weights) / weights.mean()
        return dict(zip(items, (score + slope * influence).tolist(), strict=True))


def score_with_error(statistic: ItemStatistic, values: Mapping[int, float]) -> TaskScore:
    """Return a task's score with the standard error of the mean of its contributions.

    Raises:
        ScoringError: There are no values, or the score is not finite.
    """
    if not values:
        raise ScoringError("no item has a value")
    value = statistic.score(values)
    if not math.isfinite(value):
        raise ScoringError(f"the score is {value}")
    return TaskScore(value, standard_error(np.array(list(statistic.contributions(values).values()))), len(values))


def standard_error(values: NDArray[np.float64]) -> float | None:
    """Return the standard error of the mean, None for fewer than two values."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _number(raw: Any) -> float:
    if isinstance(raw, bool | int | float | np.number | np.bool_):
        return float(raw)
    raise TypeError(f"expected a number, got {type(raw).__name__}")
