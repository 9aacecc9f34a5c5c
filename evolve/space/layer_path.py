"""A path through the layers of models: a recipe of slices, each a run of one model's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Step(NamedTuple):
    """A layer that a path goes through."""

    model: int  # which of the models
    layer: int


Path = tuple[Step, ...]


class Paths(Protocol):
    """What an optimizer of paths asks of their space."""

    @property
    def layer_counts(self) -> tuple[int, ...]:
        """Number of layers of each model."""

    @property
    def place_count(self) -> int:
        """How many of the genes, the first ones, are the path's."""

    def path_at(self, vector: Sequence[float]) -> Path:
        """The path at a point of the unit cube."""

    def point_of(self, path: Path) -> tuple[float, ...] | None:
        """A point of a path; None where the space has none."""


def whole_model(model: int, layer_count: int) -> Path:
    """The path of a model as it is."""
    return tuple(Step(model, layer) for layer in range(layer_count))


def path_slices(path: Path, models: Sequence[str], scale: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The slices of a passthrough recipe, as few as can be.

    Args:
        path: not empty.
        models: references, by the numbers in the steps.
        scale: the parameters of layers that were passed before; None where these are as the others.
    """
    slices: list[dict[str, Any]] = []
    passed: set[Step] = set()
    last: tuple[Step, bool] | None = None
    for step in path:
        again = scale is not None and step in passed
        passed.add(step)
        if last == (Step(step.model, step.layer - 1), again):
            slices[-1]["sources"][0]["layer_range"][1] = step.layer + 1
        else:
            source: dict[str, Any] = {"model": models[step.model], "layer_range": [step.layer, step.layer + 1]}
            slices.append({"sources": [source | ({"parameters": dict(scale or {})} if again else {})]})
        last = (step, again)
    return slices


def path_of_slices(slices: Sequence[Mapping[str, Any]], models: Sequence[str]) -> Path | None:
    """The path that a recipe's slices are; None where they merge models, or name another one."""
    steps: list[Step] = []
    for part in slices:
        sources = part["sources"]
        if len(sources) != 1 or sources[0]["model"] not in models:
            return None
        low, high = sources[0]["layer_range"]
        steps += [Step(models.index(sources[0]["model"]), layer) for layer in range(low, high)]
    return tuple(steps)
