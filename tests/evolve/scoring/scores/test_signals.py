"""Continuous signals and what the optimizer is told."""

from __future__ import annotations

import math

import pytest

from evolve.scoring import ScoringError, score_with_signal
from evolve.scoring.scores.signals import likelihood_signal, margin_signal


def test_a_margin_of_zero_is_one_half_and_far_margins_stay_in_the_unit_interval() -> None:
    assert margin_signal(0.0, 1.0) == 0.5
    assert margin_signal(0.1, 0.1) == 0.75
    assert margin_signal(-3.0, 1.0) == 0.125
    far = [margin_signal(margin, 1.0) for margin in (-1000.0, -900.0, 900.0, 1000.0)]
    assert far == sorted(set(far))
    assert 0 < far[0] < far[-1] < 1


def test_the_likelihood_signal_is_the_inverse_perplexity() -> None:
    assert likelihood_signal(-6.0, 3) == pytest.approx(math.exp(-2.0))
    assert likelihood_signal(0.0, 3) == 1.0
    assert likelihood_signal(-5e3, 0) == 0.0


def test_the_metric_is_told_unchanged() -> None:
    assert score_with_signal(0.1 + 0.2, {}, "metric", "minimize") == 0.1 + 0.2


@pytest.mark.parametrize("signal", ["margin", "mixed"])
def test_a_better_signal_is_told_as_better_in_either_direction(signal: str) -> None:
    better, worse = {0: 0.9, 4: 0.6}, {0: 0.8, 4: 0.6}
    up = [score_with_signal(5.0, signals, signal, "maximize") for signals in (better, worse)]  # type: ignore[arg-type]
    down = [score_with_signal(5.0, signals, signal, "minimize") for signals in (better, worse)]  # type: ignore[arg-type]
    assert up[0] > up[1]
    assert down[0] < down[1]


def test_mixed_is_half_of_each() -> None:
    assert score_with_signal(0.5, {1: 0.2, 2: 0.4}, "mixed", "maximize") == pytest.approx(0.4)
    assert score_with_signal(8.0, {1: 0.2, 2: 0.4}, "mixed", "minimize") == pytest.approx((8.0 - 0.3) / 2)


def test_a_signal_that_no_item_has_is_a_failure_and_not_a_zero() -> None:
    with pytest.raises(ScoringError, match="no item has a continuous signal"):
        score_with_signal(0.5, {}, "margin", "maximize")
