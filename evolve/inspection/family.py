"""Which of several models can be merged by weights at all, and the tensors that these share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from merge_core import Checkpoint
from merge_core.checkpoint.layout import Layout, checkpoint_layout


@dataclass(frozen=True)
class SharedTensor:
    """A tensor that every model of a family has, in the same shape.

    Attributes:
        layer: 0, 1, …; None outside the layers.
        kind: its name inside the layer, or outside the layers its name.
        names: what it is called in each model.
    """

    layer: int | None
    kind: str
    names: tuple[str, ...]


def split_families(checkpoints: Mapping[str, Checkpoint]) -> list[list[str]]:
    """Models with the same layers of the same shapes, the largest family first, each in the order given."""
    families: dict[tuple[object, ...], list[str]] = {}
    for label, checkpoint in checkpoints.items():
        families.setdefault(_shapes(checkpoint), []).append(label)
    return sorted(families.values(), key=len, reverse=True)


def shared_tensors(checkpoints: Sequence[Checkpoint]) -> Iterator[SharedTensor]:
    """The tensors of a family, without those whose shapes differ, such as embeddings of other vocabularies."""
    places = [_places(checkpoint_layout(checkpoint)) for checkpoint in checkpoints]
    for place in places[0]:
        names = tuple(own[place] for own in places if place in own)
        found = [(own.tensors[name]) for own, name in zip(checkpoints, names, strict=False)]
        same = len({header.shape for header in found}) == 1
        if len(names) == len(checkpoints) and same and all(header.dtype.is_floating_point for header in found):
            yield SharedTensor(*place, names)


def kinds_not_shared(checkpoints: Sequence[Checkpoint], shared: Sequence[SharedTensor]) -> tuple[str, ...]:
    """Kinds of tensors that are not compared: not all models have them, or in other shapes."""
    known = {(tensor.layer, tensor.kind) for tensor in shared}
    places = [_places(checkpoint_layout(checkpoint)) for checkpoint in checkpoints]
    return tuple(dict.fromkeys(kind for own in places for layer, kind in own if (layer, kind) not in known))


def _shapes(checkpoint: Checkpoint) -> tuple[object, ...]:
    layout = checkpoint_layout(checkpoint)
    return tuple(
        frozenset((inner, checkpoint.tensors[name].shape) for inner, name in layer.items()) for layer in layout.layers
    )


def _places(layout: Layout) -> dict[tuple[int | None, str], str]:
    inside = {(number, inner): name for number, layer in enumerate(layout.layers) for inner, name in layer.items()}
    return inside | {
        (None, rootless): name for part in (layout.before, layout.after) for rootless, name in part.items()
    }
