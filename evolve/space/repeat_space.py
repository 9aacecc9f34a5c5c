"""The space of one block of layers that is passed twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evolve.space.genes import RangeGene
from evolve.space.layer_genes import RepeatGenes
from evolve.space.layer_path import Path, whole_model
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.space import Coordinate


@dataclass(frozen=True)
class RepeatSpace(LayerPathSpace):
    """One block of layers of one model, passed twice: where it begins, and how many layers it has; 0 is none."""

    genes: RepeatGenes

    @property
    def _depth(self) -> int:
        return self.depths[self.models[0]]

    @property
    def largest_block(self) -> int:
        """Layers of the largest block."""
        return min(self._depth, self.longest - self._depth) if self.genes.longest else self._depth

    @property
    def largest(self) -> Path:
        """The model with its largest block passed twice."""
        whole = whole_model(0, self._depth)
        return whole + whole[self._depth - self.largest_block :]

    def path_coordinates(self) -> list[Coordinate]:
        """First layer, and number of layers."""
        first = RangeGene(low=0, high=self._depth - 1, step=1)
        count = RangeGene(low=0, high=self.largest_block, step=1)
        return [Coordinate("repeat.first", first), Coordinate("repeat.layers", count)]

    def path_of(self, values: Sequence[Any]) -> Path:
        """The model with a block passed twice; what lies beyond its last layer is left out."""
        first, count = int(values[0]), int(values[1])
        end = min(first + count, self._depth)
        steps = whole_model(0, self._depth)
        return steps[:end] + steps[first:] if count else steps

    def values_of(self, path: Path) -> list[Any] | None:
        """First layer and number of layers of the block, found as it was put in."""
        whole = whole_model(0, self._depth)
        count = len(path) - self._depth
        if count == 0 and path == whole:
            return [0, 0]
        for first in range(self._depth - count + 1) if 0 < count <= self.largest_block else ():
            if path == whole[: first + count] + whole[first:]:
                return [first, count]
        return None
