"""Scores, errors and contributions from item values."""

from __future__ import annotations

import math
import statistics
import sys

import numpy as np
import pytest

from evolve.scoring import ScoringError, TaskError
from evolve.scoring.scores.item_statistics import FunctionOfItems, LogLikelihoodOfItems, MeanOfItems, score_with_error


def test_the_error_of_a_mean_is_the_textbook_one() -> None:
    values = {3: 1.0, 5: 0.0, 9: 1.0, 11: 1.0}
    score = score_with_error(MeanOfItems(statistics.fmean), values)
    assert score.value == 0.75
    assert score.stderr == pytest.approx(statistics.stdev(values.values()) / 2)
    assert score_with_error(MeanOfItems(statistics.fmean), {1: 0.5}).stderr is None


def test_the_error_of_a_perplexity_is_that_of_resampling() -> None:
    random = np.random.default_rng(0)
    weights = random.integers(5, 50, 400).astype(float)
    nats = weights * random.normal(2.0, 0.4, 400)

    def perplexity(pairs: list[tuple[float, float]]) -> float:
        return math.exp(-sum(value for value, _ in pairs) / sum(weight for _, weight in pairs))

    statistic = LogLikelihoodOfItems(perplexity, lambda item: weights[item], exponential=True)
    score = score_with_error(statistic, dict(enumerate(nats.tolist())))
    drawn = random.integers(400, size=(4000, 400))
    resampled = np.exp(nats[drawn].sum(1) / weights[drawn].sum(1))
    assert score.value == pytest.approx(math.exp(nats.sum() / weights.sum()))
    assert score.stderr == pytest.approx(resampled.std(), rel=0.1)


def test_any_function_of_the_items_has_contributions_that_average_to_it() -> None:
    values = {item: float(value) for item, value in enumerate([5, 1, 4, 2, 2, 9])}
    contributions = FunctionOfItems(statistics.median).contributions(values)
    assert statistics.fmean(contributions.values()) == pytest.approx(3.0)
    mean = FunctionOfItems(statistics.fmean).contributions(values)
    assert mean == pytest.approx(values)


def test_no_values_and_scores_that_are_not_finite_fail_the_candidate() -> None:
    with pytest.raises(ScoringError, match="no item"):
        score_with_error(MeanOfItems(statistics.fmean), {})
    with pytest.raises(ScoringError, match="inf"):
        score_with_error(MeanOfItems(statistics.fmean), {0: math.inf})
    exploding = LogLikelihoodOfItems(lambda values: math.exp(-sum(values)), None, exponential=True)
    with pytest.raises(ScoringError, match="too large"):
        score_with_error(exploding, {0: 1e4})
    with pytest.raises(ScoringError, match=r"SystemExit"):
        score_with_error(FunctionOfItems(lambda values: sys.exit()), {0: 1.0})


def test_a_task_error_survives_the_way_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(TaskError("a", "b")))
    assert [problem.message for problem in error.problems] == ["a", "b"]
    assert str(error) == "a\nb"
