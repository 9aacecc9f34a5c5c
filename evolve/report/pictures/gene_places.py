"""Which parameter, model, kind of tensor and layers a gene is for, read from its name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

_NAME = re.compile(
    r"^(?P<parameter>[^\[\]]+?)(?:\[(?P<model>[^\]]*)\])?(?:\.(?P<part>[^\[\]]+?))??"
    r"(?:\.(?:layers(?P<low>\d+)-(?P<high>\d+)|knot(?P<knot>\d+)))?$"
)
_GROUPS = (  # the first that fits decides: post_attention_layernorm is a norm
    ("norms", re.compile(r"norm|(^|\.)ln_")),
    ("attention", re.compile(r"att|(^|[._])[qkvo]_proj")),
    ("MLP", re.compile(r"mlp|expert|router|feed_forward|(^|[._])(gate|up|down)_proj|(^|[._])fc")),
    ("embeddings", re.compile(r"emb|wte|wpe|lm_head")),
)
_ORDER = ("", "attention", "MLP", "norms", "embeddings", "other")
_PATH = re.compile(r"layer(?P<depth>\d+)|repeat\.(?P<repeat>first|layers)")
_REPEAT = {"first": "first repeated layer", "layers": "repeated layers"}
_MOST_SPANS = 8  # of layers, among which genes are summed up
_AT_BOUND = 0.0025  # of the range: what was rounded, or stopped just before it
ALL = "all"  # layers; or none, of what lies outside of them


@dataclass(frozen=True)
class GenePlace:
    """What a gene is for.

    Attributes:
        of: parameter and model.
        part: filter, or kind of tensor; empty where it is for all.
        columns: the layers, as "0", "1", ..., a knot, or `ALL`.
    """

    of: str
    part: str
    columns: tuple[str, ...]

    @classmethod
    def read(cls, name: str) -> GenePlace:
        """The place of a gene that is called as `evolve.space` calls them: "weight[sorting].mlp.layers0-3".

        >>> GenePlace.read("weight[sorting].mlp.layers0-1")
        GenePlace(of='weight sorting', part='mlp', columns=('0', '1'))
        """
        if path := _PATH.fullmatch(name):
            return cls(_REPEAT.get(path["repeat"], f"layer at depth {path['depth']}"), "", (ALL,))
        found = _NAME.match(name)
        if found is None:
            return cls(name, "", (ALL,))
        of = " ".join(part for part in (found["parameter"], found["model"]) if part)
        if found["low"] is not None:
            columns = tuple(map(str, range(int(found["low"]), int(found["high"]) + 1)))
        else:
            columns = (f"knot {found['knot']}",) if found["knot"] is not None else (ALL,)
        return cls(of, found["part"] or "", columns)

    @property
    def group(self) -> str:
        """What its part belongs to; empty where it is for all."""
        return next((name for name, fits in _GROUPS if fits.search(self.part)), "other" if self.part else "")

    def __str__(self) -> str:
        """ "weight sorting mlp, layers 0 to 3"."""
        first, last = self.columns[0], self.columns[-1]
        layers = f"layers {first} to {last}" if first != last else f"layer {first}" if first.isdigit() else first
        where = "" if first == ALL else f", {layers}"
        return f"{self.of} {self.part}".rstrip() + where


@dataclass(frozen=True)
class GeneRow:
    """The genes of one parameter, model and kind of tensor, by column.

    Attributes:
        of: parameter and model.
        group: what the part belongs to.
        part: filter, or kind of tensor.
        genes: column -> name of the gene.
    """

    of: str
    group: str
    part: str
    genes: Mapping[str, str]


def gene_rows(names: Iterable[str]) -> tuple[list[GeneRow], list[str]]:
    """The rows of a map of genes, and its columns.

    Rows of a parameter and model stand together, in the order of the genes; of these attention, MLP, norms and
    embeddings. Columns are layers ascending, then knots, at last `ALL`.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    groups: dict[tuple[str, str], str] = {}
    for name in names:
        place = GenePlace.read(name)
        key = place.of, place.part
        groups[key] = place.group
        rows.setdefault(key, {}).update(dict.fromkeys(place.columns, name))
    first = {of: number for number, (of, _) in reversed(list(enumerate(rows)))}
    ordered = sorted(rows, key=lambda key: (first[key[0]], _ORDER.index(groups[key])))
    columns = sorted({column for genes in rows.values() for column in genes}, key=_column_order)
    return [GeneRow(key[0], groups[key], key[1], rows[key]) for key in ordered], columns


def gene_groups(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """The genes of each model, of each kind of tensor, and of each of a few spans of layers, in their order."""
    places = {name: GenePlace.read(name) for name in names}
    spans = sorted({place.columns for place in places.values()}, key=lambda columns: _column_order(columns[0]))
    layered = [columns for columns in spans if columns != (ALL,)]
    size = max(1, math.ceil(len(layered) / _MOST_SPANS))
    wider = {  # each span -> the one that it is counted to
        columns: (*layered[place - place % size], *layered[min(place - place % size + size, len(layered)) - 1])
        for place, columns in enumerate(layered)
    }
    found: dict[str, dict[str, list[str]]] = {"model": {}, "kind of tensor": {}, "layer": {}}
    for name, place in sorted(places.items(), key=lambda item: spans.index(item[1].columns)):
        layers = str(replace(place, of="", part="", columns=wider.get(place.columns, (ALL,))))
        keys = (place.of, place.group or "all", layers.removeprefix(", ") or "no layer, or all")
        for groups, key in zip(found.values(), keys, strict=True):
            groups.setdefault(key, []).append(name)
    return found


def numbers(genes: Mapping[str, Any]) -> dict[str, float]:
    """Those genes that are numbers, and mean something as such: the layers of a path do not."""
    return {name: float(value) for name, value in genes.items() if is_number(value) and not _PATH.fullmatch(name)}


def is_number(value: Any) -> bool:
    """Whether a gene's value is one: true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def mean_genes(several: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of every gene that is a number in all of them."""
    found = list(several)
    shared = [name for name in (numbers(found[0]) if found else ()) if all(is_number(one.get(name)) for one in found)]
    return {name: sum(one[name] for one in found) / len(found) for name in shared}


def bounds_reached(genes: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Gene -> "low" or "high", of those that lie at an end of their range."""
    reached = {}
    for name, value in genes.items():
        low, high = ranges.get(name, (value, value))
        place = (value - low) / (high - low) if low < high else 0.5
        if not _AT_BOUND < place < 1 - _AT_BOUND:
            reached[name] = "low" if place < 0.5 else "high"
    return reached


def _column_order(column: str) -> tuple[int, int]:
    if column.isdigit():
        return 0, int(column)
    return (1, int(column.removeprefix("knot "))) if column != ALL else (2, 0)
