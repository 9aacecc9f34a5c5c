"""Predictions of scores that were not seen."""

from __future__ import annotations

import numpy as np
import pytest

from evolve.racing.predictions import Predictor

GROUPS = np.repeat([0, 1], 30)


def low_rank(models: int, generator: np.random.Generator) -> np.ndarray:
    """Scores that two profiles of the items explain."""
    profiles = np.random.default_rng(5).uniform(-0.2, 0.2, size=(2, 60))
    return 0.5 + generator.normal(size=(models, 2)).clip(-1, 1) @ profiles


def test_without_a_score_the_mean_of_the_known_models_is_predicted():
    known = low_rank(12, np.random.default_rng(0))
    predicted = Predictor(known, GROUPS).predict(np.array([], dtype=np.intp), np.zeros((3, 0)))
    assert predicted == pytest.approx(np.tile((known.sum(axis=0) + 0.5) / 13, (3, 1)))


def test_a_model_that_is_a_mixture_is_predicted_better_than_by_the_mean():
    generator = np.random.default_rng(0)
    known, new = low_rank(12, generator), low_rank(5, generator)
    seen = np.arange(0, 60, 3)
    unseen = np.setdiff1d(np.arange(60), seen)
    error = np.square(Predictor(known, GROUPS).predict(seen, new[:, seen]) - new)[:, unseen].mean()
    assert error < 0.3 * np.square(known.mean(axis=0) - new)[:, unseen].mean()


def test_scores_that_are_not_known_do_not_count():
    known = low_rank(12, np.random.default_rng(0))
    holes = np.where(np.random.default_rng(1).random(known.shape) < 0.3, np.nan, known)
    predicted = Predictor(holes, GROUPS).predict(np.arange(10), known[:2, :10])
    assert np.isfinite(predicted).all()
    assert np.abs(predicted - known[:2]).mean() < 0.15


def test_predictions_are_scores():
    known = np.eye(6).repeat(10, axis=1)
    predicted = Predictor(known, GROUPS).predict(np.arange(5), np.ones((1, 5)))
    assert ((predicted >= 0) & (predicted <= 1)).all()
