"""What it costs to move the numbers of a recipe: how much right answers change, as far as gradients tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Gradients = Sequence[Sequence[float]]

TINY = 1e-9  # of all, for what moves nothing
PRIOR = 0.05  # of the mean curvature: what moving a number costs of which no gradient tells
WAY = 0.3  # of the curvature: what gradients on the way say, where there are both


@dataclass(frozen=True)
class Metric:
    """Moving all numbers by d costs ``|rows · d|² + Σ prior · d²``.

    Around its best point a loss is a parabola, whose curvature is the mean of the outer products of its gradients on
    single items (the empirical Fisher information; Amari 1998): off the diagonal it says which numbers make up for one
    another, which is what lets a few numbers do what many did. A move of some length has the curvatures along it, of
    which one end knows its own alone.

    Attributes:
        rows: shape (gradients, numbers).
        prior: shape (numbers,).
    """

    rows: Floats
    prior: Floats

    @classmethod
    def of(cls, ends: Sequence[Gradients], moved: Sequence[float], way: Gradients = ()) -> Self:
        """From gradients, where there are any.

        Args:
            ends: of the loss on one item of every task each, by the numbers: at the long recipe, and at others near it.
            moved: how much each number moves the model, which has to do where there is no gradient.
            way: gradients on the way that led here. They are of points farther off, but have been paid for, and say
                more than a prior of the directions that few items do not see.
        """
        weights = np.array(moved, dtype=np.float64)
        here, before = _rows(ends, len(weights)), _rows([way], len(weights))
        if len(here) and len(before):
            here, before = np.sqrt(1 - WAY) * here, np.sqrt(WAY) * before
        rows = np.concatenate([here, before])
        if not len(rows):
            return cls(rows, weights / max(float(weights.sum()), TINY) + TINY)
        return cls(rows, np.full(len(weights), PRIOR / len(weights)))


def _rows(sets: Sequence[Gradients], count: int) -> Floats:
    """Those of all sets, as much of each, scaled so that their squares sum to 1; none where nothing moves anything."""
    found = [np.array(one, dtype=np.float64).reshape(len(one), count) for one in sets]
    sizes = [float(np.linalg.norm(rows)) for rows in found]
    known = [rows / size for rows, size in zip(found, sizes, strict=True) if size > 0.0]
    return np.concatenate(known) / np.sqrt(len(known)) if known else np.zeros((0, count))
