"""A continuous number per item beside the metric, and what the optimizer is told of both.

A metric such as accuracy moves in steps of one item; most candidates of a search tie or differ by luck. A signal
says how near each item was. Every signal lies in (0, 1), higher is better, so that it can be averaged over items of
different kinds and mixed with a metric in [0, 1]:

- multiple choice: (1 + m / (1 + |m|)) / 2 with m = margin / scale, the margin being the gold choice's log-likelihood,
  normalised as the metric does, minus the best wrong choice's. Above 1/2 exactly where the metric counts the item as
  right. Its tails are long: an item that is far off still says which of two candidates is nearer.
- log-likelihood, and generation with a gold answer: exp(nats per token), the geometric mean probability of the gold
  answer's tokens.
- rolling log-likelihood: exp(nats per byte), the inverse of the item's byte perplexity.

The task's own metric remains the judge: it alone chooses the recipe. Only the optimizer hears the signal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from evolve.scoring.errors import ScoringError
from evolve.scoring.task_config import Direction, Signal


def margin_signal(margin: float, scale: float) -> float:
    """(1 + m / (1 + |m|)) / 2, where m = margin / scale.

    Args:
        margin: Gold minus best wrong choice, in nats or nats per unit of length.
        scale: The margin at which the signal is 3/4, in the same unit, above 0.
    """
    scaled = margin / scale
    return (1 + scaled / (1 + abs(scaled))) / 2


def likelihood_signal(log_likelihood: float, units: float) -> float:
    """exp(log_likelihood / units).

    Args:
        log_likelihood: In nats, at most 0.
        units: Tokens, words or bytes it is the sum over; at least 1 is taken.
    """
    return math.exp(log_likelihood / max(units, 1.0))


def score_with_signal(score: float, signals: Mapping[int, float], signal: Signal, direction: Direction) -> float:
    """The score that the optimizer is told, in the direction of the metric.

    `metric` is the score itself. `margin` is the mean signal, and `mixed` half of each: where the metric should go
    down, the signal counts negatively, so that lower remains better.

    Args:
        score: The task's score by its metric.
        signals: The signal of each item, higher is better.
        signal: What the user asks for.
        direction: Of the metric.

    Raises:
        ScoringError: A signal is asked for and no item has one.
    """
    if signal == "metric":
        return score
    if not signals:
        raise ScoringError(f"signal: {signal} is asked for, but no item has a continuous signal")
    mean = math.fsum(signals.values()) / len(signals)
    oriented_mean = mean if direction == "maximize" else -mean
    return oriented_mean if signal == "margin" else (score + oriented_mean) / 2
