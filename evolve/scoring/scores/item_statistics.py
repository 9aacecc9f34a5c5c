"""From one value per item to a task's score and its standard error.

Each metric keeps one value per item, so that racing may stop anywhere, a journal can hold it, and two models
can be compared item by item. How the values become the score is the metric's business: a plain mean, a
perplexity, or any function of all of them (BLEU of texts, F1 of predictions, a median).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evolve.scoring.errors import ScoringError
from evolve.scoring.foreign_code import without_escape
from evolve.scoring.scorer import ItemValue, TaskScore

# Scores are recomputed at most so often to learn what each item contributes.
_MOST_LEFT_OUT = 100


class ItemStatistic(Protocol):
    """What a metric does with its items."""

    def item_value(self, raw: Any) -> ItemValue:
        """What is kept of what the task's `process_results` gave for an item.

        Raises:
            TypeError: It is not of the kind that this statistic keeps.
        """

    def score(self, values: Mapping[int, ItemValue]) -> float:
        """The task's score.

        Raises:
            ScoringError: It is not defined for these values.
        """

    def contributions(self, values: Mapping[int, ItemValue]) -> dict[int, float]:
        """One number per item, whose mean is the score."""


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
    """A metric whose score is a function of all items at once: a median of numbers, BLEU of texts, F1 of predictions.

    The value of an item is what the task's `process_results` gave for it, as JSON.

    Contributions are jackknife pseudo-values (Tukey 1958), shifted so that their mean is the score. Beyond 100 items,
    blocks of items are left out together (delete-a-group jackknife), so that a score is recomputed at most 100 times:
    each item of a block gets the block's deviation times the square root of the block's size, which keeps the standard
    error of the mean what it would be item by item. Where the score without some items is not defined, those are given
    no influence.

    Attributes:
        function: The task's own aggregation.
        name: Of the metric, in errors.
    """

    function: Callable[[Sequence[Any]], Any]
    name: str = "the score"

    def item_value(self, raw: Any) -> ItemValue:
        return json_value(raw)

    def score(self, values: Mapping[int, ItemValue]) -> float:
        try:
            with warnings.catch_warnings(record=True) as caught, without_escape():
                warnings.simplefilter("always")
                score = float(self.function([values[item] for item in sorted(values)]))
        except Exception as error:  # the task's own code may raise anything
            raise ScoringError(f"{self.name} cannot be computed from {len(values)} items: {error}") from error
        for warning in caught:
            # scikit-learn warns, and gives 0, where its metric is not defined.
            if warning.category.__name__ == "UndefinedMetricWarning":
                raise ScoringError(f"{self.name} is not defined on {len(values)} items: {warning.message}")
        return score

    def contributions(self, values: Mapping[int, ItemValue]) -> dict[int, float]:
        items, score = sorted(values), self.score(values)
        blocks = _blocks(items)
        if len(blocks) == 1:
            return {items[0]: score}
        deviations: dict[int, float] = {}
        for block in blocks:
            left_out = set(block)
            try:
                without = self.score({item: values[item] for item in items if item not in left_out})
            except ScoringError:
                without = score
            pseudo_deviation = (len(items) / len(block) - 1) * (score - without)
            deviations |= dict.fromkeys(block, pseudo_deviation * math.sqrt(len(block)))
        shift = math.fsum(deviations.values()) / len(items)
        return {item: score + deviation - shift for item, deviation in deviations.items()}


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


def score_with_error(statistic: ItemStatistic, values: Mapping[int, ItemValue]) -> TaskScore:
    """A task's score with the standard error of the mean of its contributions.

    Raises:
        ScoringError: There are no values, or the score is not finite.
    """
    if not values:
        raise ScoringError("no item has a value")
    value = statistic.score(values)
    if not math.isfinite(value):
        raise ScoringError(f"the score is {value}")
    kept = dict(values)

    def error() -> float | None:
        return standard_error(np.array(list(statistic.contributions(kept).values())))

    return TaskScore(value, error, len(values))


def standard_error(values: NDArray[np.float64]) -> float | None:
    """The standard error of the mean, None for fewer than two values."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def json_value(raw: Any) -> ItemValue:
    """A value as JSON would give it back, so that a resumed search sees what the first one saw.

    Raises:
        TypeError: It has no form in JSON.
        ScoringError: It is or holds a number that is not finite.
    """
    if raw is None or isinstance(raw, str | bool | int):
        return raw
    if isinstance(raw, np.bool_ | np.integer | np.floating):
        return json_value(raw.item())
    if isinstance(raw, float):
        if not math.isfinite(raw):
            raise ScoringError(f"a part of an item's result is {raw}")
        return raw
    if isinstance(raw, tuple | list):
        return [json_value(part) for part in raw]
    if isinstance(raw, np.ndarray):
        return json_value(raw.tolist())
    if isinstance(raw, Mapping) and all(isinstance(key, str) for key in raw):
        return {key: json_value(part) for key, part in raw.items()}
    raise TypeError(f"expected what JSON can hold, got {type(raw).__name__}")


def _blocks(items: Sequence[int]) -> list[Sequence[int]]:
    """Neighbouring items in at most `_MOST_LEFT_OUT` blocks whose sizes differ by one at most."""
    count = min(len(items), _MOST_LEFT_OUT)
    edges = [index * len(items) // count for index in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(edges)]


def _number(raw: Any) -> float:
    if isinstance(raw, bool | int | float | np.number | np.bool_):
        return float(raw)
    raise TypeError(f"expected a number, got {type(raw).__name__}")
