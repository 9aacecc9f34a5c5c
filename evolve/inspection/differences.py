"""How models differ from one another, two by two, whichever of them is the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from evolve.inspection.row_sample import RowSample

Matrix = npt.NDArray[np.float64]
FEWEST_ROWS = 16  # and columns, of a matrix that tells a rank
COMPARABLE = 0.2  # of a squared distance has another one at least whose rank is compared with its own


@dataclass
class Differences:
    """What was summed over the tensors that were added; all tables are models x models.

    Attributes:
        count: of models.
        squared: squared distances, estimated for whole tensors.
        norms: of each model, squared.
        by_layer: squared distances by layer.
        by_kind: and by kind of tensor.
    """

    count: int
    squared: Matrix = field(init=False)
    norms: Matrix = field(init=False)
    by_layer: dict[int | None, Matrix] = field(default_factory=dict)
    by_kind: dict[str, Matrix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.squared = np.zeros((self.count, self.count))
        self.norms = np.zeros(self.count)
        self._equal = np.zeros((self.count, self.count))
        self._elements = 0
        self._ranks: list[Matrix] = []

    def add(self, layer: int | None, kind: str, sample: RowSample) -> None:
        """Count a tensor in."""
        flat = sample.values.flatten(1)
        # From the first model, since differences are small beside the weights themselves.
        apart = flat - flat[0]
        inner = (apart @ apart.T).double().numpy() * sample.scale
        squares = np.diag(inner)
        found = np.maximum(squares[:, None] + squares[None, :] - 2 * inner, 0.0)
        self.squared += found
        self.norms += torch.linalg.vector_norm(flat, dim=1).double().numpy() ** 2 * sample.scale
        self.by_layer[layer] = self.by_layer.get(layer, np.zeros_like(found)) + found
        self.by_kind[kind] = self.by_kind.get(kind, np.zeros_like(found)) + found
        if not apart.any():
            return  # what nobody trained tells nothing of who was trained from whom
        for one in range(self.count):
            self._equal[one] += (flat == flat[one]).sum(1).double().numpy()
        self._elements += flat.shape[1]
        if min(sample.values.shape[1:]) >= FEWEST_ROWS:
            self._ranks.append(self._ranks_of(sample.values))

    @property
    def unchanged(self) -> Matrix:
        """The share of elements that are equal to the bit, of tensors that not all models share."""
        return self._equal / max(1, self._elements)

    @property
    def ranks(self) -> Matrix:
        """The median over matrices of a difference's rank, where that of noise is 1; NaN where nothing tells it."""
        if not self._ranks:
            return np.full((self.count, self.count), np.nan)
        table = np.stack(self._ranks)
        found = np.full(table.shape[1:], np.nan)
        for one, other in np.ndindex(found.shape):
            known = table[:, one, other][np.isfinite(table[:, one, other])]
            found[one, other] = np.median(known) if len(known) else np.nan
        return found

    def of(self, models: Sequence[int]) -> Differences:
        """What is between some of the models."""
        chosen = np.ix_(models, models)
        part = Differences(len(models))
        part.squared, part.norms = self.squared[chosen], self.norms[list(models)]
        part._equal, part._elements = self._equal[chosen], self._elements
        part._ranks = [table[chosen] for table in self._ranks]
        return part

    def _ranks_of(self, values: torch.Tensor) -> Matrix:
        found = np.full((self.count, self.count), np.nan)
        for one in range(self.count):
            for other in range(one):
                difference = values[one] - values[other]
                if difference.any():
                    rank = nuclear_rank(difference) / _rank_of_noise(*difference.shape)
                    found[one, other] = found[other, one] = rank
        return found


def nuclear_rank(matrix: torch.Tensor) -> float:
    """The squared ratio of nuclear and Frobenius norm: at least 1, and the rank where singular values are equal.

    Args:
        matrix: rows x columns, not all 0.
    """
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = torch.linalg.eigvalsh(small.double() @ small.double().T).clamp_min(0.0)
    return float(squares.sqrt().sum() ** 2 / squares.sum())


@cache
def _rank_of_noise(rows: int, columns: int) -> float:
    return nuclear_rank(torch.randn((rows, columns), generator=torch.Generator().manual_seed(0)))


def cosines(squared: Matrix, base: int) -> Matrix:
    """Cosines of the models' differences from a base, by the law of cosines.

    Args:
        squared: models x models, squared distances.
        base: which of them.

    Returns:
        models x models; NaN in the base's row and column and where a model is the base to the bit.
    """
    from_base = squared[base]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Matrix = (from_base[:, None] + from_base[None, :] - squared) / (
            2 * np.sqrt(from_base[:, None] * from_base[None, :])
        )
    return np.where(np.isfinite(found), np.clip(found, -1.0, 1.0), np.nan)


def additive_lengths(table: Matrix) -> Matrix:
    """Each model's own length sᵢ where the table is sᵢ + sⱼ, by least squares; at least three models.

    Args:
        table: models x models, symmetric; the diagonal is not looked at.
    """
    count = len(table)
    sums = (table - np.diag(np.diag(table))).sum(axis=1)
    found: Matrix = np.maximum((sums - sums.sum() / (2 * (count - 1))) / (count - 2), 0.0)
    return found


def relative_ranks(ranks: Matrix, squared: Matrix) -> list[float]:
    """Of each model, how low the ranks are of its differences from the others, beside those between others.

    What is left between two models that are hardly apart beside a third is mostly noise, of high rank whoever the third
    is; so a rank is compared with those of differences that are not much smaller.

    Args:
        ranks: models x models.
        squared: distances, models x models.

    Returns:
        The mean ratio of each model; 1 where ranks are alike, and infinite where none can be compared.
    """
    count = len(ranks)
    found = []
    for number in range(count):
        ratios = []
        for other in range(count):
            rest = [
                ranks[other][third]
                for third in range(count)
                if third not in (number, other) and squared[other][third] >= COMPARABLE * squared[other][number]
            ]
            if other != number and rest:
                ratios.append(ranks[other][number] / float(np.nanmedian(rest)))
        found.append(float(np.nanmean(ratios)) if ratios else math.inf)
    return found
