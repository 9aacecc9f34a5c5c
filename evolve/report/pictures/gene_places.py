"""Which parameter, model, kind of tensor and layers a gene is for, read from its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(
    r"^(?P<parameter>[^\[\]]+?)(?:\[(?P<model>[^\]]*)\])?(?:\.(?P<part>[^\[\]]+?))??"
    r"(?:\.(?:layers(?P<low>\d+)-(?P<high>\d+)|knot(?P<knot>\d+)))?$"
)
ALL = "all"  # layers; or none, of what lies outside of them


@dataclass(frozen=True)
class GenePlace:
    """What a gene is for.

    Attributes:
        row: parameter, model and kind of tensor.
        columns: the layers, as "0", "1", ..., a knot, or `ALL`.
    """

    row: str
    columns: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> GenePlace:
        """The place of a gene that is called as `evolve.space` calls them: "weight[sorting].mlp.layers0-3".

        >>> GenePlace.of("weight[sorting].mlp.layers0-1")
        GenePlace(row='weight sorting mlp', columns=('0', '1'))
        """
        found = _NAME.match(name)
        if found is None:
            return cls(name, (ALL,))
        row = " ".join(part for part in (found["parameter"], found["model"], found["part"]) if part)
        if found["low"] is not None:
            return cls(row, tuple(map(str, range(int(found["low"]), int(found["high"]) + 1))))
        return cls(row, (f"knot {found['knot']}",) if found["knot"] is not None else (ALL,))


@dataclass(frozen=True)
class GeneGrid:
    """Numbers of genes by row and column.

    Attributes:
        rows: in the order of the genes.
        columns: layers ascending, then knots, at last `ALL`.
        values: one for every row and column; None where no gene is for it.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]

    @classmethod
    def of(cls, genes: Mapping[str, Any]) -> GeneGrid:
        """The grid of all genes that are numbers."""
        numbers = {
            name: float(value)
            for name, value in genes.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        places = {name: GenePlace.of(name) for name in numbers}
        rows = tuple(dict.fromkeys(place.row for place in places.values()))
        columns = tuple(sorted({column for place in places.values() for column in place.columns}, key=_order))
        cells = {(place.row, column): numbers[name] for name, place in places.items() for column in place.columns}
        return cls(rows, columns, tuple(tuple(cells.get((row, column)) for column in columns) for row in rows))


def mean_genes(several: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of every gene that is a number in all of them."""
    found = list(several)
    shared = [
        name
        for name in (found[0] if found else ())
        if all(isinstance(one.get(name), int | float) and not isinstance(one.get(name), bool) for one in found)
    ]
    return {name: sum(one[name] for one in found) / len(found) for name in shared}


def _order(column: str) -> tuple[int, int]:
    if column.isdigit():
        return 0, int(column)
    return (1, int(column.removeprefix("knot "))) if column != ALL else (2, 0)
