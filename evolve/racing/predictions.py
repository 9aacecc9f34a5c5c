"""What is expected of an item's score before it is seen: from other models' scores, and from the candidate's so far.

Scores of models that are merges of the same few are of low rank: a candidate's row is near a combination of a few
profiles of items, which are the leading singular vectors of the scores that are known (the low-rank predictions of
arXiv 2605.10405). A prediction may be as wrong as it likes: it is taken off before an item is
drawn and its sum over the items added back, so that it changes the variance alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evolve.racing.item_order import Floats

_PROFILES = 8
_NOISE = 0.06  # variance that profiles leave, of scores in [0, 1]
_GROUP_DEVIATION = 0.1  # of a candidate's mean over a task from that of the models that are known


class Predictor:
    """Ridge regression on profiles of items.

    Args:
        known: Scores in [0, 1], shape (models, items); NaN where one is not known.
        groups: The task of each item, as an index, shape (items,).
    """

    def __init__(self, known: Floats, groups: NDArray[np.intp]) -> None:
        seen = np.isfinite(known)
        self._mean = np.where(seen, known, 0.0).sum(axis=0) + 0.5
        self._mean /= seen.sum(axis=0) + 1
        models, items = known.shape
        deviations = np.where(seen, known - self._mean, 0.0)
        _, singular, profiles = np.linalg.svd(deviations, full_matrices=False)
        rank = min(_PROFILES, len(singular))
        tasks = np.eye(groups.max() + 1)[groups]
        self._features = np.hstack([tasks, profiles[:rank].T * np.sqrt(items)])
        spread = np.maximum(singular[:rank] / np.sqrt(models * items), 1e-3)
        self._penalty = np.diag(_NOISE / np.r_[np.full(tasks.shape[1], _GROUP_DEVIATION), spread] ** 2)

    def predict(self, seen: NDArray[np.intp], values: Floats) -> Floats:
        """Scores of all items.

        Args:
            seen: Indices of the items whose scores are known of these candidates, shape (n,).
            values: Those scores, shape (candidates, n).

        Returns:
            Shape (candidates, items), in [0, 1].
        """
        features = self._features[seen]
        residuals = values - self._mean[seen]
        coefficients = np.linalg.solve(features.T @ features + self._penalty, features.T @ residuals.T)
        predicted: Floats = np.clip(self._mean + (self._features @ coefficients).T, 0.0, 1.0)
        return predicted
