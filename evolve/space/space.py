"""What the search needs of a search space: the axes of the unit cube, and a standard recipe at every point of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from evolve.space.genes import Gene

Vector = Sequence[float]
"""A point of the unit cube, shape (genes,)."""

RecipeMapping = dict[str, Any]


@dataclass(frozen=True)
class Coordinate:
    """One axis of the unit cube."""

    name: str  # "weight[addition].mlp.layers0-3"
    gene: Gene
    parameter: str | None = None  # "weight", when the gene is a merge parameter
    model: str | None = None  # the model that the parameter belongs to, if to one
    layers: str | None = None  # "layers0-3" or "knot1": which of the layers it is for, if not for all
    is_switch: bool = False  # of a model that can be left out
    is_place: bool = False  # of a path through layers: its choices are no alternatives of which each must be tried


class Space(Protocol):
    """What the search needs of a search space."""

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The axes of the unit cube."""

    @property
    def models(self) -> tuple[str, ...]:
        """Every model named, the base included, in the order of the file."""

    @property
    def base_model(self) -> str | None:
        """The model that task vectors are taken against, if any."""

    def decode(self, vector: Vector) -> RecipeMapping:
        """The standard recipe at a point of the unit cube."""

    def recipe_of(self, values: Sequence[Any]) -> RecipeMapping:
        """The standard recipe in which the genes have these values, whether or not these are in their ranges."""

    def start(self, reference: Mapping[str, float] | None) -> list[float]:
        """Where to start, given the model weights of the best reference (None: not known)."""


@runtime_checkable
class ConditionalSpace(Space, Protocol):
    """One in which genes of some candidates count for nothing in others."""

    @property
    def is_conditional(self) -> bool:
        """Whether there are such genes."""

    def left_out(self, vector: Vector) -> Sequence[str]:
        """The optional models that are not in the recipe at a point."""

    def inactive(self, vector: Vector) -> frozenset[int]:
        """The genes that count for nothing at a point."""

    def canonical(self, vector: Vector) -> tuple[float, ...]:
        """The point that stands for all in which only inactive genes differ."""


def values_at(coordinates: Sequence[Coordinate], vector: Vector) -> list[Any]:
    """The values that genes have at a point, shape (genes,).

    Raises:
        ValueError: the point has another number of coordinates.
    """
    if len(vector) != len(coordinates):
        raise ValueError(f"expected {len(coordinates)} genes, got {len(vector)}")
    return [axis.gene.value(unit) for axis, unit in zip(coordinates, vector, strict=True)]


def gene_values(space: Space, vector: Vector) -> dict[str, Any]:
    """Name -> value of every gene that counts at a point of the unit cube."""
    names = [axis.name for axis in space.coordinates]
    found = dict(zip(names, values_at(space.coordinates, vector), strict=True))
    if not isinstance(space, ConditionalSpace):
        return found
    off = space.left_out(vector)
    found |= {axis.name: axis.model not in off for axis in space.coordinates if axis.is_switch}
    inactive = {space.coordinates[number].name for number in space.inactive(vector)}
    return {name: value for name, value in found.items() if name not in inactive}
