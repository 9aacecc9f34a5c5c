"""Spaces of paths through the layers of models, each point of which is a passthrough recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evolve.problems import ConfigError, Problem
from evolve.space.genes import ChoiceGene, RangeGene
from evolve.space.layer_genes import PathGenes, RepeatGenes
from evolve.space.layer_path import Path, Step, path_of_slices, path_slices, whole_model
from evolve.space.space import Coordinate, RecipeMapping, Vector, values_at
from evolve.space.template import Template

SKIP = "none"
LONGER = 1.5  # than the longest model, where a search says nothing


@dataclass(frozen=True)
class LayerPathSpace(ABC):
    """What all of them have in common.

    Attributes:
        template: the recipe.
        depths: model → number of its layers, in the order of the file.
        genes: what stands under `layers`.
    """

    template: Template
    depths: Mapping[str, int]
    genes: RepeatGenes | PathGenes

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the file."""
        return tuple(self.depths)

    @property
    def base_model(self) -> str | None:
        """None: a path takes layers as they are."""
        return None

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The genes of the path, then the scale of layers that are passed again."""
        scale = self.genes.scale
        return (*self.path_coordinates(), *([Coordinate("scale", scale)] if scale is not None else []))

    @property
    def longest(self) -> int:
        """Layers at most."""
        shortest = getattr(self.genes, "shortest", None) or 1
        return self.genes.longest or max(int(LONGER * max(self.depths.values())), shortest)

    @property
    @abstractmethod
    def largest(self) -> Path:
        """A path of the most memory."""

    @abstractmethod
    def path_coordinates(self) -> list[Coordinate]:
        """The genes of the path."""

    @abstractmethod
    def path_of(self, values: Sequence[Any]) -> Path:
        """The path that genes stand for."""

    @abstractmethod
    def values_of(self, path: Path) -> list[Any] | None:
        """The values of the path's genes; None where they stand for no such path."""

    def recipe_of(self, values: Sequence[Any]) -> RecipeMapping:
        """The recipe of a path, with a scale of the layers that are passed again if that is a gene."""
        gene = self.genes.scale
        return self.recipe(self.path_of(values), None if gene is None else values[-1])

    def recipe(self, path: Path, scale: float | None = None) -> RecipeMapping:
        """The passthrough recipe of a path."""
        gene = self.genes.scale
        parameters = None
        if gene is not None and scale is not None:
            parameters = {"scale": [{"filter": name, "value": scale} for name in gene.filters]}
        kept = {key: value for key, value in self.template.document.items() if key not in ("layers", "models")}
        return self.template.complete({**kept, "slices": path_slices(path, self.models, parameters)})

    def decode(self, vector: Vector) -> RecipeMapping:
        """The recipe at a point of the unit cube."""
        return self.recipe_of(values_at(self.coordinates, vector))

    @property
    def layer_counts(self) -> tuple[int, ...]:
        """Number of layers of each model."""
        return tuple(self.depths.values())

    @property
    def place_count(self) -> int:
        """Genes of the path."""
        return len(self.coordinates) - (self.genes.scale is not None)

    def path_at(self, vector: Vector) -> Path:
        """The path at a point of the unit cube."""
        return self.path_of(values_at(self.coordinates, vector))

    def point_of(self, path: Path) -> tuple[float, ...] | None:
        """The point of a path, with layers that are passed again at their full strength; None where it has none."""
        values = self.values_of(path)
        if values is None:
            return None
        scale = self.genes.scale
        if scale is not None:
            values = [*values, min(max(1.0, scale.low), scale.high) if scale.init is None else scale.init]
        return tuple(axis.gene.unit(value) for axis, value in zip(self.coordinates, values, strict=True))

    def point_of_recipe(self, recipe: Mapping[str, Any]) -> tuple[float, ...] | None:
        """The point of a recipe that is a path; of any other None."""
        if "slices" in recipe:
            path = path_of_slices(recipe["slices"], self.models)
        else:
            models = [entry["model"] for entry in recipe.get("models", ()) if entry["model"] in self.depths]
            path = self.path_of_model(models[0]) if len(models) == 1 and len(recipe["models"]) == 1 else None
        return None if path is None else self.point_of(path)

    def path_of_model(self, model: str) -> Path:
        """A model as it is."""
        return whole_model(self.models.index(model), self.depths[model])

    def start(self, reference: Mapping[str, float] | None) -> list[float]:
        """The best model as it is, as far as that is known; else the first that can be."""
        best = max(self.models, key=lambda model: (reference or {}).get(model, 0.0))
        points = (self.point_of(self.path_of_model(model)) for model in (best, *self.models))
        point = next((found for found in points if found is not None), None)
        return list(point) if point is not None else [0.5] * len(self.coordinates)

    def canonical(self, vector: Vector) -> tuple[float, ...]:
        """The point that stands for all of the same path and scale."""
        path = self.path_at(vector)
        point = self.point_of(path)
        if point is None or self.genes.scale is None:
            return point or tuple(vector)
        again = len(set(path)) < len(path)
        return (*point[:-1], vector[-1] if again else point[-1])


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


@dataclass(frozen=True)
class PathSpace(LayerPathSpace):
    """A gene for each place of the longest path: a layer, or none."""

    genes: PathGenes

    @property
    def same_depth(self) -> bool:
        """Whether a layer stands where it stood in its model."""
        return self.genes.path == "same_depth"

    @property
    def shortest(self) -> int:
        """Layers at least: half the shortest model's where nothing is said of it, or all where depth is kept."""
        fewest = min(self.depths.values())
        return self.genes.shortest or (fewest if self.same_depth else max(1, min(fewest // 2, self.longest)))

    @cached_property
    def places(self) -> tuple[tuple[Step | None, ...], ...]:
        """What may stand at each place; None is no layer."""
        depth = max(self.depths.values())
        every = [Step(model, layer) for model, count in enumerate(self.depths.values()) for layer in range(count)]
        if not self.same_depth:
            return ((None, *every),) * self.longest
        none = [None] if self.shortest < depth else []
        return tuple((*none, *(step for step in every if step.layer == place)) for place in range(depth))

    @property
    def largest(self) -> Path:
        """As many different layers as a path may have."""
        every = [Step(model, layer) for model, count in enumerate(self.depths.values()) for layer in range(count)]
        count = max(self.depths.values()) if self.same_depth else min(self.longest, len(every))
        return tuple(every[:count])

    def path_coordinates(self) -> list[Coordinate]:
        """One for each place: at its own depth a choice of models, else the number of a layer, 0 being none."""
        return [
            Coordinate(f"layer{number}", self._gene(steps), is_place=True) for number, steps in enumerate(self.places)
        ]

    def _gene(self, steps: Sequence[Step | None]) -> RangeGene | ChoiceGene:
        if self.same_depth:
            return ChoiceGene(choices=tuple(map(self._value, steps)))
        return RangeGene(low=0, high=len(steps) - 1, step=1)

    @cached_property
    def _numbers(self) -> Mapping[Step | None, int]:
        return {step: number for number, step in enumerate(self.places[0])}

    def _value(self, step: Step | None) -> Any:
        """What the gene of a place has where a layer stands at it."""
        if not self.same_depth:
            return self._numbers[step]
        return self._skip if step is None else self._labels[step.model]

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        return tuple(self.template.labels().values())

    @cached_property
    def _skip(self) -> str:
        """What stands for no layer, which no model is called."""
        name = SKIP
        while name in self._labels:
            name += "_"
        return name

    def _step(self, value: Any, place: int) -> Step | None:
        if not self.same_depth:
            return self.places[place][int(value)]
        return None if value == self._skip else Step(self._labels.index(value), place)

    def path_of(self, values: Sequence[Any]) -> Path:
        """The layers in order. A path that is too short is completed: at their own depth by layers of the first model,
        else by those that would follow in the model of its last."""
        found = [self._step(value, place) for place, value in enumerate(values[: len(self.places)])]
        if self.same_depth:
            missing = self.shortest - sum(step is not None for step in found)
            for place, step in enumerate(found):
                if step is None and missing > 0:
                    found[place] = Step(0, place)
                    missing -= 1
        path = [step for step in found if step is not None][: self.longest]
        while len(path) < self.shortest:
            last = path[-1] if path else Step(0, -1)
            path.append(Step(last.model, (last.layer + 1) % list(self.depths.values())[last.model]))
        return tuple(path)

    def values_of(self, path: Path) -> list[Any] | None:
        """Layers from the first place on, and then none; or each at its own depth."""
        if not self.shortest <= len(path) <= self.longest:
            return None
        if not self.same_depth:
            return [self._value(step) for step in (*path, *(None,) * (len(self.places) - len(path)))]
        at_depth: dict[int, Step] = {step.layer: step for step in path}
        found = [at_depth.get(place) for place in range(len(self.places))]
        in_order = [step.layer for step in path] == sorted(at_depth)
        if not in_order or any(step not in steps for step, steps in zip(found, self.places, strict=True)):
            return None
        return list(map(self._value, found))


def span_layers(
    template: Template, depths: Mapping[str, int], genes: RepeatGenes | PathGenes, tensors: Collection[str]
) -> LayerPathSpace:
    """The space of a recipe with `layers`.

    Args:
        template: the recipe.
        depths: model → number of its layers.
        genes: what stands under `layers`.
        tensors: names of those that the models have.

    Raises:
        ConfigError: filters of no tensor, lengths that no path of these models has, or models that no choice is of.
    """
    problems = _misfits(depths, genes)
    if genes.scale is not None:
        for index, name in enumerate(genes.scale.filters):
            if not any(name in tensor for tensor in tensors):
                message = f"{name!r} is in no tensor's name. Name what a layer's output goes through, such as c_proj"
                problems.append(Problem(("layers", "scale", "filters", index), message))
    if problems:
        raise ConfigError(*problems)
    return (RepeatSpace if isinstance(genes, RepeatGenes) else PathSpace)(template, depths, genes)  # type: ignore[arg-type]


def _misfits(depths: Mapping[str, int], genes: RepeatGenes | PathGenes) -> list[Problem]:
    found = []
    deepest = max(depths.values())
    if isinstance(genes, RepeatGenes):
        if len(depths) > 1:
            message = f"repeats blocks of one model, got {len(depths)}. Name one, or use path: any"
            found.append(Problem(("layers", "repeat"), message))
        if deepest == 1:
            message = (
                "the model has one layer, so there are no blocks to choose from. Write its slices, or take path: any"
            )
            found.append(Problem(("layers", "repeat"), message))
        if genes.longest is not None and genes.longest <= deepest:
            message = f"the model has {deepest} layers, so a longest of {genes.longest} repeats none. Use more"
            found.append(Problem(("layers", "longest"), message))
    elif genes.path == "same_depth":
        if len(set(depths.values())) > 1:
            counts = ", ".join(f"{model} {count}" for model, count in depths.items())
            message = f"same_depth needs models with as many layers as each other, got {counts}. Use path: any"
            found.append(Problem(("layers", "path"), message))
        if len(depths) == 1 and (genes.shortest or deepest) >= deepest:
            message = "there is nothing to choose: give a shortest below the layers, or another model to take them from"
            found.append(Problem(("layers", "path"), message))
        if genes.shortest is not None and genes.shortest > deepest:
            found.append(Problem(("layers", "shortest"), f"the models have {deepest} layers, got {genes.shortest}"))
        if (genes.longest or deepest) < deepest or genes.scale is not None:
            message = "same_depth passes no layer twice: remove scale, and longest below the models' depth"
            found.append(Problem(("layers",), message))
    return found
