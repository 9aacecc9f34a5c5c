"""A path through the layers of a merge, and the genes of that merge, in one genome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evolve.problems import ConfigError, Problem
from evolve.space.layer_genes import PathGenes, RepeatGenes
from evolve.space.layer_path import Path, Step
from evolve.space.layer_path_space import LayerPathSpace
from evolve.space.recipe_space import RecipeSpace
from evolve.space.space import Coordinate, RecipeMapping, Vector, values_at
from evolve.space.span_layers import span_layers
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from merge_core.recipe.documents import layers_document

MERGE = "merge"  # what the path goes through, as a model


@dataclass(frozen=True)
class MergedPathSpace:
    """The genes of the path, then those of the merge.

    Layers of the merge are skipped, moved and repeated with the values that they have in the whole merge: a layer that
    is passed twice is twice the same. Genes of layers that are not on the path count for nothing.

    Attributes:
        paths: through the merge as one model.
        merge: what is merged, without a path.
    """

    paths: LayerPathSpace
    merge: RecipeSpace

    @classmethod
    def span(
        cls, template: Template, depths: Mapping[str, int], genes: RepeatGenes | PathGenes, kinds: TensorKinds
    ) -> MergedPathSpace:
        """The space of a recipe of models with `layers`.

        Args:
            template: the recipe.
            depths: model → number of its layers.
            genes: what stands under `layers`.
            kinds: of the models' tensors, for `filters: each_tensor`.

        Raises:
            ConfigError: models of several depths, a path that they do not have, or genes that make no sense.
        """
        if len(set(depths.values())) > 1:
            counts = ", ".join(f"{model} {count}" for model, count in depths.items())
            message = f"layers of a merge are merged at their own depth, so models need as many of them, got {counts}"
            raise ConfigError(Problem(("layers",), message))
        depth = next(iter(depths.values()))
        whole = Template.read({"merge_method": "passthrough", "models": [{"model": MERGE}]})
        merge = RecipeSpace.from_template(template.without_layers(), depth, kinds)
        return cls(span_layers(whole, {MERGE: depth}, genes, ()), merge)

    @property
    def models(self) -> tuple[str, ...]:
        """Those that are merged."""
        return self.merge.models

    @property
    def base_model(self) -> str | None:
        """The base of the merge."""
        return self.merge.base_model

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The genes of the path, then those of the merge."""
        return (*self.paths.coordinates, *self.merge.coordinates)

    @property
    def layer_counts(self) -> tuple[int, ...]:
        """The layers of the merge."""
        return self.paths.layer_counts

    @property
    def place_count(self) -> int:
        """Genes of the path."""
        return self.paths.place_count

    def path_at(self, vector: Vector) -> Path:
        """The path at a point of the unit cube."""
        return self.paths.path_at(vector[: self.place_count])

    def point_of(self, path: Path) -> tuple[float, ...] | None:
        """The point of a path, with the merge at its start; None where it has none."""
        point = self.paths.point_of(path)
        return None if point is None else (*point, *self.merge.start(None))

    def recipe_of(self, values: Sequence[Any]) -> RecipeMapping:
        """The recipe in which the genes have these values."""
        return self.recipe(self.paths.path_of(values[: self.place_count]), values[self.place_count :])

    def recipe(self, path: Path, values: Sequence[Any]) -> RecipeMapping:
        """The recipe of a path and values of the merge's genes; of all layers in order the merge as it is written."""
        layers = [step.layer for step in path]
        whole = layers == list(range(self.merge.layer_count))
        return self.merge.recipe_on(None if whole else layers, values)

    @property
    def largest(self) -> RecipeMapping:
        """A candidate of the most memory."""
        return self.recipe(self.paths.largest, [axis.gene.value(0.5) for axis in self.merge.coordinates])

    def decode(self, vector: Vector) -> RecipeMapping:
        """The recipe at a point of the unit cube."""
        return self.recipe_of(values_at(self.coordinates, vector))

    def start(self, reference: Mapping[str, float] | None) -> list[float]:
        """All layers in order, merged as the recipe would be without a path."""
        return [*self.paths.start(None), *self.merge.start(reference)]

    @property
    def is_conditional(self) -> bool:
        """True: layers may be left out."""
        return True

    def left_out(self, vector: Vector) -> list[str]:
        """The optional models that are not in the recipe at a point."""
        return self.merge.left_out(vector[self.place_count :])

    def inactive(self, vector: Vector) -> frozenset[int]:
        """The genes that count for nothing at a point: those of layers that are not on the path, too."""
        return frozenset(number + self.place_count for number in self._inactive_of_merge(vector))

    def _inactive_of_merge(self, vector: Vector) -> frozenset[int]:
        on_path = {step.layer for step in self.path_at(vector)}
        return self.merge.inactive_on(on_path, vector[self.place_count :])

    def canonical(self, vector: Vector) -> tuple[float, ...]:
        """The point that stands for all of the same path and values on it."""
        merge = self.merge.canonical_on(self._inactive_of_merge(vector), vector[self.place_count :])
        return (*self.paths.canonical(vector[: self.place_count]), *merge)

    def with_path_of(self, recipe: Mapping[str, Any], vector: Vector) -> tuple[float, ...] | None:
        """A point with the path that another recipe's layers are, whichever models they are taken from.

        Args:
            recipe: such as an earlier search found.
            vector: where the other genes have their values from.

        Returns:
            None where its layers are no path of this space.
        """
        path = _path_of(recipe, self.merge.layer_count)
        point = None if path is None else self.paths.point_of(path)
        return None if point is None else (*point, *vector[self.place_count :])


def _path_of(recipe: Mapping[str, Any], layer_count: int) -> Path | None:
    """The layers that follow one another in a recipe; None where they are several depths at once."""
    written = layers_document(recipe)
    if "slices" not in written:
        return tuple(Step(0, layer) for layer in range(layer_count))
    layers: list[int] = []
    for part in written["slices"]:
        ranges = {tuple(source["layer_range"]) for source in part["sources"]}
        if len(ranges) > 1:
            return None
        layers += range(*ranges.pop())
    return tuple(Step(0, layer) for layer in layers)
