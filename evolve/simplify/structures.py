"""Shorter forms of a recipe: which tensors share a number, chosen by what the long recipe's numbers lose by it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.inspection.family import shared_tensors
from evolve.inspection.row_sample import sample_rows
from evolve.space.genes import Path, RangeGene
from evolve.space.layer_slices import group_bounds
from merge_core import Checkpoint

MOST_FILTERS = 6
MOST_BLOCKS = 3
WORTH_A_NUMBER = 1e-3  # of what is lost with the fewest numbers; less is gained by nobody

Cell = tuple[str, int | None]  # a kind of tensor, and a layer; None outside the layers
Part = tuple[str | None, int | None]  # a filter, None for the rest, and a block of layers


@dataclass(frozen=True)
class Site:
    """A parameter of one model whose numbers differ among tensors.

    Attributes:
        path: in the recipe.
        gene: its range.
        values: kind of tensor and layer → the long recipe's number there.
        weights: how much each of them moves the model: squared length of the task vector there.
    """

    path: Path
    gene: RangeGene
    values: Mapping[Cell, float]
    weights: Mapping[Cell, float]


@dataclass(frozen=True)
class Structure:
    """Which tensors share a number, the same way for every model.

    Attributes:
        filters: of a recipe, the first that is in a tensor's name decides; what none is in is one part more.
        blocks: of layers.
        numbers: that the recipe has then.
        loss: weighted squared distance of the long recipe's numbers from their means.
    """

    filters: tuple[str, ...]
    blocks: int
    numbers: int
    loss: float

    @property
    def name(self) -> str:
        """ "2 blocks, self_attn, mlp, rest"."""
        blocks = [f"{self.blocks} blocks"] if self.blocks > 1 else []
        return ", ".join([*blocks, *self.filters, "rest" if self.filters else "all tensors"])


def structures(sites: Sequence[Site], layers: int, most: int) -> list[Structure]:
    """Structures of which none with as few numbers keeps more of the long recipe, shortest first.

    Args:
        sites: of all models.
        layers: of a model.
        most: numbers at most.
    """
    found = []
    for blocks in range(1, min(MOST_BLOCKS, layers) + 1):
        for filters in _nested_filters(sites, layers, blocks):
            numbers = sum(1 for site in sites for _ in _parts(site, filters, layers, blocks))
            if numbers <= most:
                found.append(Structure(filters, blocks, numbers, _loss(sites, filters, layers, blocks)))
    found.sort(key=lambda one: (one.numbers, one.loss))
    front: list[Structure] = []
    for one in found:
        if not front or one.loss < front[-1].loss - WORTH_A_NUMBER * front[0].loss:
            front.append(one)
    return front


def settings(sites: Sequence[Site], structure: Structure, layers: int) -> dict[str, Any]:
    """Dotted path in search.yml → genes of the short form, which begin at the long one's means."""
    found: dict[str, Any] = {}
    for site in sites:
        entries = []
        for name in (*structure.filters, None):
            cells = [cell for cell in site.values if _filter_of(cell, structure.filters) == name]
            if not cells:
                continue
            gene = site.gene.model_dump(exclude_none=True, exclude={"layers", "filters", "init", "name"})
            mean = _mean(site, cells)
            gene["init"] = min(max(mean, site.gene.low), site.gene.high)
            if structure.blocks > 1 and any(layer is not None for _, layer in cells):
                gene["layers"] = {"blocks": structure.blocks}
            entries.append({"value": gene} if name is None else {"filter": name, "value": gene})
        whole = entries[0]["value"] if len(entries) == 1 else entries
        found[".".join(("recipe", *map(str, site.path)))] = whole
    return found


def tensor_weights(checkpoints: Mapping[str, Checkpoint], base: str | None) -> dict[str, dict[Cell, float]]:
    """Model → kind of tensor and layer → squared length of its difference from the base; without one, of itself."""
    labels = list(checkpoints)
    found: dict[str, dict[Cell, float]] = {label: {} for label in labels}
    for tensor in shared_tensors([checkpoints[label] for label in labels]):
        sample = sample_rows([checkpoints[label] for label in labels], tensor)
        values = sample.values.flatten(1)
        apart = values if base is None else values - values[labels.index(base)]
        squares = (apart.double() ** 2).sum(1) * sample.scale
        for label, square in zip(labels, squares, strict=True):
            found[label][tensor.kind, tensor.layer] = float(square)
    return found


def _nested_filters(sites: Sequence[Site], layers: int, blocks: int) -> Iterator[tuple[str, ...]]:
    """Greedily: the filter that keeps most is added to those before."""
    kinds = {kind for site in sites for kind, _ in site.values}
    words = {word for kind in kinds for word in _words(kind)}
    filters: tuple[str, ...] = ()
    yield filters
    for _ in range(MOST_FILTERS):
        longer = [_ordered((*filters, word)) for word in sorted(words - set(filters))]
        if not longer:
            return
        filters = min(longer, key=lambda some: _loss(sites, some, layers, blocks))
        yield filters


def _words(kind: str) -> Iterator[str]:
    """ "mlp.up_proj.weight" → "mlp", "up_proj", "mlp.up_proj"."""
    parts = kind.removesuffix(".weight").removesuffix(".bias").split(".")
    for start, end in itertools.combinations(range(len(parts) + 1), 2):
        word = ".".join(parts[start:end])
        if not word.isdigit():
            yield word


def _ordered(filters: Sequence[str]) -> tuple[str, ...]:
    """The special before the general."""
    return tuple(sorted(filters, key=lambda word: (-len(word), word)))


def _filter_of(cell: Cell, filters: Sequence[str]) -> str | None:
    return next((word for word in filters if word in cell[0]), None)


def _parts(site: Site, filters: Sequence[str], layers: int, blocks: int) -> dict[Part, list[Cell]]:
    bounds = group_bounds(layers, blocks)
    found: dict[Part, list[Cell]] = {}
    for cell in site.values:
        layer = cell[1]
        block = None
        if layer is not None:
            block = next(number for number, (low, high) in enumerate(bounds) if low <= layer < high)
        found.setdefault((_filter_of(cell, filters), block), []).append(cell)
    # What stands in no layer and under no filter of its own takes the number of the first block.
    merged: dict[Part, list[Cell]] = {}
    for (name, block), cells in found.items():
        inside = block is None and any((name, other) in found for other in range(blocks))
        merged.setdefault((name, 0 if inside else block), []).extend(cells)
    return merged


def _mean(site: Site, cells: Sequence[Cell]) -> float:
    total = sum(site.weights[cell] for cell in cells)
    if not total:
        return sum(site.values[cell] for cell in cells) / len(cells)
    return sum(site.weights[cell] * site.values[cell] for cell in cells) / total


def _loss(sites: Sequence[Site], filters: Sequence[str], layers: int, blocks: int) -> float:
    loss = 0.0
    for site in sites:
        for cells in _parts(site, filters, layers, blocks).values():
            mean = _mean(site, cells)
            loss += sum(site.weights[cell] * (site.values[cell] - mean) ** 2 for cell in cells)
    return loss
