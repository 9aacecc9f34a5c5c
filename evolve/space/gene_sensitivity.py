"""From genes to the parameters of tensors, and the gradient of a loss back again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.space.genes import RangeGene
from evolve.space.space import RecipeMapping, Space, Vector, values_at
from merge_core import METHODS, ParameterSlot

Slot = tuple[str, ParameterSlot]
"""Output tensor, and a parameter of it."""

ParametersOf = Callable[[RecipeMapping], Mapping[str, Mapping[ParameterSlot, float]]]
"""A recipe → output tensor → slot → value, of all parameters that its merge is differentiable in."""

NO_DETERMINANT = 1e-5  # of the moments of one gene alone, whose rounding grows with the square of the genes' number
EXACT = 1e-9  # of moments, and of differences between parameters that are told apart


@dataclass(frozen=True)
class GeneSensitivity:
    """How parameters follow from the genes' values: linearly, each from few of them.

    Attributes:
        genes: which axes of the space a gradient can be followed in, ascending.
        rows: slot → the genes that set it, with the derivative of the parameter by the gene's value.
    """

    genes: tuple[int, ...]
    rows: Mapping[Slot, tuple[tuple[int, float], ...]]

    @property
    def slots(self) -> tuple[ParameterSlot, ...]:
        """Which parameters the genes that are followed set, in whatever tensors."""
        return tuple(sorted({slot for _, slot in self.rows}, key=str))

    @classmethod
    def find(cls, space: Space, parameters_of: ParametersOf, vector: Vector) -> GeneSensitivity:
        """Read off what every gene does from recipes whose values tell which is which.

        A parameter is one gene's value, or lies between those of two knots. So four recipes, in which gene k of n is
        by 1, k/n, (k/n)² and (k/n)³ of its range above its lowest value, tell its genes and their shares, and one at
        the point itself that they were told rightly. What does not follow so (an interpolated logit, say) is left
        out, with all of its genes.

        Args:
            space: what is searched.
            parameters_of: plans a recipe; reads no weights.
            vector: where genes that are not followed have their values from.
        """
        values: list[Any] = values_at(space.coordinates, vector)
        names = {name for method in METHODS.values() for name in method.differentiable}
        able = [
            number
            for number, axis in enumerate(space.coordinates)
            if isinstance(axis.gene, RangeGene) and axis.gene.step is None and axis.parameter in names
        ]

        def parameters(power: int | None) -> dict[Slot, float]:
            changed = list(values)
            for place, number in enumerate(able, start=1):
                low, width = _range(space, number)
                changed[number] = low if power is None else low + width * (place / len(able)) ** power
            found = parameters_of(space.recipe_of(changed))
            return {(output, slot): value for output, slots in found.items() for slot, value in slots.items()}

        at_lowest, *moments = (parameters(power) for power in (None, 0, 1, 2, 3))
        present = parameters_of(space.recipe_of(values))
        rows: dict[Slot, tuple[tuple[int, float], ...]] = {}
        wrong: set[int] = set()
        for slot, lowest in at_lowest.items():
            found = [moment.get(slot, lowest) - lowest for moment in moments]
            if max(map(abs, found)) < EXACT:
                continue
            shares = _genes_with(found, len(able))
            row = tuple((able[place - 1], share / _range(space, able[place - 1])[1]) for place, share in shares)
            now = present.get(slot[0], {}).get(slot[1], math.nan)
            told = lowest + sum(share * (values[number] - _range(space, number)[0]) for number, share in row)
            if row and math.isclose(told, now, rel_tol=1e-4, abs_tol=1e-4):
                rows[slot] = row
            else:
                wrong |= {number for number, _ in row} or set(able)
        rows = {slot: row for slot, row in rows.items() if not wrong & {number for number, _ in row}}
        return cls(tuple(sorted({number for row in rows.values() for number, _ in row})), rows)

    def gradient(self, space: Space, vector: Vector, slopes: Mapping[Slot, float]) -> list[float]:
        """The derivative of a loss by the units of all genes; 0 for those that are not followed.

        Args:
            space: what is searched.
            vector: the point, shape (genes,).
            slopes: the derivative of the loss by the parameters.

        Returns:
            Shape (genes,).
        """
        found = [0.0] * len(space.coordinates)
        for slot, slope in slopes.items():
            for number, share in self.rows.get(slot, ()):
                found[number] += share * slope
        for number in self.genes:
            gene: Any = space.coordinates[number].gene
            found[number] *= gene.slope(vector[number])
        return found


def _range(space: Space, number: int) -> tuple[float, float]:
    """A gene's lowest value, and how far its range reaches above it."""
    gene: Any = space.coordinates[number].gene
    return gene.low, gene.high - gene.low


def _genes_with(moments: Sequence[float], count: int) -> Sequence[tuple[int, float]]:
    """Which one or two places have these moments, and their shares; none where no such places do.

    A parameter that is ``Σ share · value`` has the moments ``Σ share · (place / count)^k``. Two places are the roots of
    the polynomial whose coefficients solve the moments' Hankel system (Prony's method).

    Args:
        moments: for k from 0 to 3.
        count: the last place; the first is 1.
    """
    scale = moments[0]
    if not scale:
        return ()
    first, second, third = (moment / scale * count**power for power, moment in enumerate(moments[1:], start=1))
    determinant = second - first**2
    if abs(determinant) < NO_DETERMINANT:
        places = [first]
    else:
        total = (third - first * second) / determinant
        product = (first * third - second**2) / determinant
        spread = math.sqrt(max(0.0, total**2 - 4 * product))
        places = [(total - spread) / 2, (total + spread) / 2]
    if not all(0.5 < place < count + 0.5 for place in places):
        return ()
    found = [round(place) for place in places]
    if len(set(found)) == 2:
        low, high = found
        share = (first - low) / (high - low)
        row = [(low, scale * (1 - share)), (high, scale * share)]
    else:
        row = [(found[0], scale)]
    told = [sum(share * (place / count) ** power for place, share in row) for power in range(4)]
    same = all(
        math.isclose(one, other, rel_tol=0, abs_tol=EXACT * abs(scale))
        for one, other in zip(told, moments, strict=True)
    )
    return row if same else ()
