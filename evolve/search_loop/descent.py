"""Adam within the ranges of the genes, and the resolution at which it tells genes apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evolve.config.strategy import Resolution
from evolve.space.genes import RangeGene
from evolve.space.space import Coordinate, Vector

Floats = NDArray[np.float64]

RATE_STEPS = 20  # after which the rate has fallen by a factor of sqrt(2)
LAST_SHARE = 0.1  # of the last step in the average
DECAYS = 0.9, 0.999  # of the means of gradients and their squares
TINY = 1e-12  # beside a root mean square


class Descent:
    """One path: a point of the unit cube that follows gradients (Adam; Kingma & Ba 2015, arXiv:1412.6980).

    Args:
        coordinates: all genes.
        start: where, shape (genes,).
        genes: which of them have a gradient.
        rate: how far a gene moves in the first step, in its own unit; the rate falls with the root of the steps.
        resolution: of the movement.

    Attributes:
        vector: where it is, shape (genes,).
        average: of where it was, later steps counting more, shape (genes,): what the noise of few items makes a point
            jump by is not in it (Polyak & Juditsky 1992).
    """

    def __init__(
        self,
        coordinates: Sequence[Coordinate],
        start: Vector,
        genes: Sequence[int],
        rate: float,
        resolution: Resolution,
    ) -> None:
        self.vector: tuple[float, ...] = tuple(start)
        self.average: tuple[float, ...] = self.vector
        self._start = np.array(start, dtype=np.float64)
        self._directions = directions(coordinates, genes, resolution)
        self._rate = rate
        self._widths = np.array([_width(axis) for axis in coordinates])
        count = self._directions.shape[1]
        self._amounts, self._mean, self._square = np.zeros(count), np.zeros(count), np.zeros(count)
        self._steps = 0

    def step(self, gradient: Sequence[float]) -> None:
        """Move against a gradient.

        Args:
            gradient: of the loss by the units of the genes, shape (genes,).
        """
        self._steps += 1
        # In the genes' own units, in which one rate is right for all of them.
        slope = self._directions.T @ (np.array(gradient) / self._widths)
        first, second = DECAYS
        self._mean = first * self._mean + (1 - first) * slope
        self._square = second * self._square + (1 - second) * slope**2
        mean = self._mean / (1 - first**self._steps)
        square = self._square / (1 - second**self._steps)
        rate = self._rate / np.sqrt(1 + (self._steps - 1) / RATE_STEPS)
        self._amounts = self._amounts - rate * mean / (np.sqrt(square) + TINY)
        moved = self._start + self._directions @ self._amounts / self._widths
        self.vector = tuple(float(unit) for unit in np.clip(moved, 0.0, 1.0))
        share = max(LAST_SHARE, 1 / self._steps)
        pairs = zip(self.average, self.vector, strict=True)
        self.average = tuple((1 - share) * before + share * now for before, now in pairs)


def directions(coordinates: Sequence[Coordinate], genes: Sequence[int], resolution: Resolution) -> Floats:
    """In which directions genes move together.

    Args:
        coordinates: all genes.
        genes: those that move.
        resolution: `model`: those of a parameter of a model move together; `layer`: those of each of its layers;
            `gene` and `auto`: each by itself.

    Returns:
        Shape (genes, directions), of zeros and ones.
    """
    columns: dict[tuple[str | None, ...], list[int]] = {}
    for number in genes:
        axis = coordinates[number]
        shared = axis.parameter, axis.model
        own = {"model": shared, "layer": (*shared, axis.layers)}.get(resolution, (axis.name,))
        columns.setdefault(own, []).append(number)
    found = np.zeros((len(coordinates), len(columns)))
    for direction, column in enumerate(columns.values()):
        found[column, direction] = 1.0
    return found


def shrunk(
    coordinates: Sequence[Coordinate], genes: Sequence[int], start: Vector, end: Vector, share: float
) -> tuple[float, ...]:
    """A point whose genes came from the start by ways that differ less within a layer than another's.

    Args:
        coordinates: all genes.
        genes: those that moved.
        start, end: of a way, shape (genes,).
        share: of the difference between a gene's way and the mean of its layer's that is kept, from 0 to 1.
    """
    together = directions(coordinates, genes, "layer")
    way = np.array(end) - np.array(start)
    mean = together @ ((together.T @ way) / together.sum(axis=0))
    point = np.where(together.any(axis=1), np.array(start) + mean + share * (way - mean), np.array(end))
    return tuple(float(unit) for unit in np.clip(point, 0.0, 1.0))


def _width(axis: Coordinate) -> float:
    """What a unit is in the gene's own unit; 1 on a logarithmic scale, which has no one unit."""
    gene = axis.gene
    return gene.high - gene.low if isinstance(gene, RangeGene) and not gene.log else 1.0
