"""What spaces of paths through the layers of models have in common: each point is a passthrough recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evolve.space.layer_genes import PathGenes, RepeatGenes
from evolve.space.layer_path import Path, path_of_slices, path_slices, whole_model
from evolve.space.space import Coordinate, RecipeMapping, Vector, values_at
from evolve.space.template import Template

LONGER = 1.5  # than the longest model, where a search says nothing


@dataclass(frozen=True)
class LayerPathSpace(ABC):
    """What spaces of paths have in common.

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
