"""A search space is a recipe with ranges in it: genes <-> unit vector <-> standard recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evolve.problems import Place
from evolve.space.gene_sites import GROUP, METHOD, GeneSite, find_sites, stacked_depth
from evolve.space.genes import ChoiceGene, RangeGene, put, remove, unshared_copy
from evolve.space.layer_slices import LayerGroups, LayerRuns, group_bounds, layer_runs, split_into_slices
from evolve.space.optional_models import optional_models, select_models
from evolve.space.space import Coordinate, RecipeMapping, Vector, values_at
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from evolve.space.unread_genes import unread_settings
from merge_core import METHODS
from merge_core.recipe.documents import DOCUMENTS
from merge_core.recipe.places import value_at

NO_KINDS = TensorKinds()


@dataclass(frozen=True)
class RecipeSpace:
    """The search space of a recipe template.

    Example:
        >>> space = RecipeSpace.from_template(Template.read({
        ...     "merge_method": "linear",
        ...     "models": [{"model": "a", "parameters": {"weight": {"low": 0, "high": 1}}},
        ...                {"model": "b", "parameters": {"weight": 0.5}}]}), layer_count=4)
        >>> space.decode([0.25])["models"][0]["parameters"]["weight"]
        0.25
    """

    template: Template
    layer_count: int
    coordinates: tuple[Coordinate, ...]
    models: tuple[str, ...]
    base_model: str | None
    _sites: tuple[GeneSite, ...] = field(repr=False)
    _switches: Mapping[str, int] = field(repr=False)  # optional model -> its axis
    _unread: Mapping[str, frozenset[Place]] = field(repr=False)  # merge method -> settings with genes

    @classmethod
    def from_template(cls, template: Template, layer_count: int, kinds: TensorKinds = NO_KINDS) -> RecipeSpace:
        """Find the genes of a recipe template.

        Args:
            template: the recipe.
            layer_count: layers of the models, for `layers: {blocks: N}` and `layers: each`.
            kinds: of the models' tensors, for `filters: each_tensor`.

        Raises:
            ConfigError: a gene stands where its options make no sense.
        """
        sites, coordinates = find_sites(template, layer_count, kinds)
        labels = template.labels()
        switches = {}
        for model in optional_models(template.document):
            switches[model] = len(coordinates)
            gene = ChoiceGene(choices=(True, False), init=True)
            coordinates.append(Coordinate(f"use[{labels[model]}]", gene, model=model, is_switch=True))
        return cls(
            template=template,
            layer_count=layer_count,
            coordinates=tuple(coordinates),
            models=template.models,
            base_model=template.base_model,
            _sites=sites,
            _switches=switches,
            _unread={
                method: places & {site.setting for site in sites if site.setting is not None}
                for method, places in unread_settings(template).items()
            },
        )

    def decode(self, vector: Vector) -> RecipeMapping:
        """The standard recipe at `vector`, shape (genes,), each in [0, 1]."""
        return self.recipe_of(values_at(self.coordinates, vector))

    def recipe_of(self, values: Sequence[Any]) -> RecipeMapping:
        """The standard recipe in which the genes have these values, shape (genes,), without what its method ignores."""
        return self.recipe_on(None, values)

    def recipe_on(self, path: Sequence[int] | None, values: Sequence[Any]) -> RecipeMapping:
        """The recipe of some layers of the merge in a row, each with the values that it has in the whole merge.

        Args:
            path: the layers, of a recipe of `models`. None: all, once.
            values: of the genes, shape (genes,).
        """
        method = self._method(values)
        runs = None if path is None else layer_runs(path)
        if not isinstance(method, LayerGroups):
            return self.template.complete(self._merged(values, method, runs))
        depth = stacked_depth(self.template.document, self.layer_count)
        methods = [method.at(layer, depth) for layer in (path or range(depth))]
        return self.template.complete(self._stacked(values, methods, runs))

    def _stacked(self, values: Sequence[Any], methods: Sequence[str], runs: LayerRuns | None) -> RecipeMapping:
        """A document for each merge method, and a last one that stacks their layers, each made by its own method."""
        used = list(dict.fromkeys(methods))
        if len(used) == 1:
            return self._merged(values, used[0], runs)
        names = {method: self._document_name(method) for method in used}
        documents: list[RecipeMapping] = [
            {"name": names[method], **self._merged(values, method, runs)} for method in used
        ]
        slices: list[RecipeMapping] = []
        for layer, method in enumerate(methods):
            last = slices[-1]["sources"][0] if slices else {}
            if last.get("model") == names[method]:
                last["layer_range"][1] = layer + 1
            else:
                slices.append({"sources": [{"model": names[method], "layer_range": [layer, layer + 1]}]})
        dtypes = {key: documents[0][key] for key in ("dtype", "out_dtype") if key in documents[0]}
        return {DOCUMENTS: [*documents, {"merge_method": "passthrough", "slices": slices, **dtypes}]}

    def _document_name(self, method: str) -> str:
        """A name that no model has."""
        name = f"by_{method}"
        while name in self.models:
            name += "_"
        return name

    def _merged(self, values: Sequence[Any], method: str, runs: LayerRuns | None = None) -> RecipeMapping:
        """The recipe of one merge method."""
        recipe: RecipeMapping = unshared_copy(self.template.document)
        unread = self._unread.get(method, frozenset())
        for place in unread:
            remove(recipe, place)
        grouped = False
        for site in self._sites:
            if site.place == METHOD:
                recipe["merge_method"] = method
            elif site.setting not in unread:
                grouped = grouped or site.has_groups
                put(recipe, site.place, site.value(values))
        recipe = select_models(recipe, self._switched_off(values))
        return split_into_slices(recipe, self.layer_count, runs) if grouped or runs is not None else recipe

    def _switched_off(self, values: Sequence[Any]) -> list[str]:
        """The models that are left out; where too few would be left for the method, the first of them stay."""
        off = [model for model, axis in self._switches.items() if not values[axis]]
        if not off:
            return []
        method = self._method(values)
        used = method.values if isinstance(method, LayerGroups) else (method,)
        fewest = max(METHODS[name].minimum_models if name in METHODS else 1 for name in used)
        left = len([model for model in self.models if model != self.base_model]) - len(off)
        return off[max(fewest - left, 0) :]

    @property
    def is_conditional(self) -> bool:
        """Whether genes of some candidates count for nothing in others."""
        return bool(self._switches) or any(self._unread.values())

    def left_out(self, vector: Vector) -> list[str]:
        """The optional models that are not in the recipe at a point."""
        return self._switched_off(values_at(self.coordinates, vector))

    def inactive(self, vector: Vector) -> frozenset[int]:
        """The genes that count for nothing at a point: of models left out, or that its method does not read."""
        return self.inactive_on(None, vector) if self.is_conditional else frozenset()

    def inactive_on(self, path: Collection[int] | None, vector: Vector) -> frozenset[int]:
        """The genes that count for nothing in some layers of the merge, see `recipe_on`."""
        values = values_at(self.coordinates, vector)
        off = set(self._switched_off(values))
        active = set(self._switches.values())
        method = self._method(values)
        used = method.values if isinstance(method, LayerGroups) else (method,)
        unread = frozenset.intersection(*(self._unread.get(name, frozenset()) for name in used))
        for site in self._sites:
            model = value_at(self.template.document, (*site.place[: _entry_length(site.place)], "model"))
            if site.setting not in unread and model not in off:
                active |= {axis for group in site.axes for axis in self._axes_on(path, group)}
        return frozenset(range(len(self.coordinates))) - active

    def _axes_on(self, path: Collection[int] | None, axes: tuple[int, ...]) -> Iterator[int]:
        """Of the axes of groups of layers, those that have a layer on a path; any others of a gene."""
        suffix = self.coordinates[axes[0]].layers or ""
        if path is None or not suffix.startswith(GROUP):
            yield from axes
            return
        for axis, (low, high) in zip(axes, group_bounds(self.layer_count, len(axes)), strict=True):
            if any(low <= layer < high for layer in path):
                yield axis

    def canonical(self, vector: Vector) -> tuple[float, ...]:
        """The point that stands for all in which only inactive genes differ."""
        return self.canonical_on(self.inactive(vector), vector)

    def canonical_on(self, inactive: Collection[int], vector: Vector) -> tuple[float, ...]:
        """A point with the genes that count for nothing in their middle, and models that must stay switched on."""
        off = self.left_out(vector)
        return tuple(
            axis.gene.unit(axis.model not in off) if axis.is_switch else 0.5 if number in inactive else unit
            for number, (axis, unit) in enumerate(zip(self.coordinates, vector, strict=True))
        )

    def _method(self, values: Sequence[Any]) -> str | LayerGroups:
        genes = [site.value(values) for site in self._sites if site.place == METHOD]
        found: str | LayerGroups = genes[0] if genes else self.template.document["merge_method"]
        return found

    def start(self, reference: Mapping[str, float] | None) -> list[float]:
        """Written `init` first, then the weights of the best reference, then the middle of the range."""
        return [self._start_of(axis, reference) for axis in self.coordinates]

    def _start_of(self, axis: Coordinate, reference: Mapping[str, float] | None) -> float:
        gene = axis.gene
        if gene.init is not None:
            return gene.unit(gene.init)  # type: ignore[arg-type]
        if reference is not None and isinstance(gene, RangeGene):
            if axis.parameter == "weight" and axis.model is not None:
                return gene.unit(reference.get(axis.model, 0.0))
            methods = [METHODS[name] for name in self.template.methods if name in METHODS]
            if axis.parameter == "t" and self.base_model is not None and any(one.interpolates for one in methods):
                # t = 0 is the base model, t = 1 the other one.
                return gene.unit(sum(reference.get(model, 0.0) for model in self.models if model != self.base_model))
        return gene.unit(gene.choices[0]) if isinstance(gene, ChoiceGene) else 0.5


def _entry_length(place: Place) -> int:
    """How much of a place is the entry of a model; none of it where it is of none."""
    return next((number + 2 for number, key in enumerate(place) if key in ("models", "sources")), 0)
