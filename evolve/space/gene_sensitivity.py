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

ROUNDING = 1e-12  # of what is computed, relative to what it is computed from
EXACT = 1e-6  # of differences between parameters that are told apart


@dataclass(frozen=True)
class GeneSensitivity:
    """How parameters follow from the genes' values: linearly, each from few of them.

    Attributes:
        genes: which axes of the space a gradient can be followed in, ascending.
        rows: slot → the genes that set it, with the derivative of the parameter by the gene's value.
    """

    genes: tuple[int, ...]
    rows: Mapping[Slot, tuple[tuple[int, float], ...]]

    @classmethod
    def find(cls, space: Space, parameters_of: ParametersOf, vector: Vector) -> GeneSensitivity:
        """Read off what every gene does from recipes whose values tell which is which.

        A parameter is one gene's value, or lies between those of two knots. So four recipes, in which gene k has the
        values 1, k, k² and k³, tell its genes and their shares, and one at the point itself that they were told
        rightly. What does not follow so (an interpolated logit, say) is left out, with all of its genes.

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
                changed[number] = 0.0 if power is None else float(place**power)
            found = parameters_of(space.recipe_of(changed))
            return {(output, slot): value for output, slots in found.items() for slot, value in slots.items()}

        constant, *moments = (parameters(power) for power in (None, 0, 1, 2, 3))
        present = parameters_of(space.recipe_of(values))
        rows: dict[Slot, tuple[tuple[int, float], ...]] = {}
        wrong: set[int] = set()
        for slot, at_zero in constant.items():
            found = [moment.get(slot, at_zero) - at_zero for moment in moments]
            if max(map(abs, found)) < EXACT:
                continue
            shares = _genes_with(found, len(able))
            row = tuple((able[place - 1], share) for place, share in shares)
            now = present.get(slot[0], {}).get(slot[1], math.nan)
            told = at_zero + sum(share * values[number] for number, share in row)
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


def _genes_with(moments: Sequence[float], count: int) -> Sequence[tuple[int, float]]:
    """Which one or two places have these moments, and their shares; none where no such places do.

    A parameter that is ``Σ share · value`` has the moments ``Σ share · place^k``. Two places are the roots of the
    polynomial whose coefficients solve the moments' Hankel system (Prony's method).

    Args:
        moments: for k from 0 to 3.
        count: the last place; the first is 1.
    """
    zeroth, first, second, third = moments
    determinant = zeroth * second - first**2
    if abs(determinant) < ROUNDING * max(1.0, first**2):
        places = [first / zeroth if zeroth else math.nan]
    else:
        total = (zeroth * third - first * second) / determinant
        product = (first * third - second**2) / determinant
        spread = math.sqrt(max(0.0, total**2 - 4 * product))
        places = [(total - spread) / 2, (total + spread) / 2]
    if not all(0.5 < place < count + 0.5 for place in places):
        return ()
    found = [round(place) for place in places]
    if len(set(found)) == 2:
        low, high = found
        share = (first - low * zeroth) / (high - low)
        row = [(low, zeroth - share), (high, share)]
    else:
        row = [(found[0], zeroth)]
    told = [sum(share * place**power for place, share in row) for power in range(4)]
    same = all(math.isclose(one, other, rel_tol=EXACT, abs_tol=EXACT) for one, other in zip(told, moments, strict=True))
    return row if same else ()
