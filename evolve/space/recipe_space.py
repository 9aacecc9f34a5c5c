"""A search space is a recipe with ranges in it: genes <-> unit vector <-> standard recipe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from evolve.problems import ConfigError, Problem, format_place
from evolve.space.genes import (
    Blocks,
    ChoiceGene,
    Knots,
    Path,
    RangeGene,
    find_genes,
    parse_gene,
    put,
    remove,
    unshared_copy,
)
from evolve.space.layer_slices import LayerGroups, LayerRuns, group_bounds, layer_runs, split_into_slices
from evolve.space.optional_models import optional_models, select_models
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from evolve.space.unread_genes import unread_settings
from merge_core import METHODS
from merge_core.recipe.documents import DOCUMENTS
from merge_core.recipe.places import ParameterSetting, value_at

NO_KINDS = TensorKinds()
_METHOD: Path = ("merge_method",)
GROUP = "layers"  # before the first and the last layer in the name of a gene of a group of them
_FEWEST_KNOTS = 2

Vector = Sequence[float]
RecipeMapping = dict[str, Any]


@dataclass(frozen=True)
class Coordinate:
    """One axis of the unit cube."""

    name: str  # "weight[addition].mlp.block0"
    gene: RangeGene | ChoiceGene
    parameter: str | None = None  # "weight", when the gene is a merge parameter
    model: str | None = None  # the model that the parameter belongs to, if to one
    layers: str | None = None  # "layers0-3" or "knot1": which of the layers it is for, if not for all
    is_switch: bool = False  # of a model that can be left out
    is_place: bool = False  # of a path through layers: its choices are no alternatives of which each must be tried


class Space(Protocol):
    """What the search needs of a search space."""

    @property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """The axes of the unit cube."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """Every model named, the base included, in the order of the file."""
        ...

    @property
    def base_model(self) -> str | None:
        """The model that task vectors are taken against, if any."""
        ...

    def decode(self, vector: Vector) -> RecipeMapping:
        """The standard recipe at a point of the unit cube."""
        ...

    def recipe_of(self, values: Sequence[Any]) -> RecipeMapping:
        """The standard recipe in which the genes have these values, whether or not these are in their ranges."""
        ...

    def start(self, reference: Mapping[str, float] | None) -> list[float]:
        """Where to start, given the model weights of the best reference (None: not known)."""
        ...


@runtime_checkable
class ConditionalSpace(Space, Protocol):
    """One in which genes of some candidates count for nothing in others."""

    @property
    def is_conditional(self) -> bool:
        """Whether there are such genes."""
        ...

    def left_out(self, vector: Vector) -> Sequence[str]:
        """The optional models that are not in the recipe at a point."""
        ...

    def inactive(self, vector: Vector) -> frozenset[int]:
        """The genes that count for nothing at a point."""
        ...

    def canonical(self, vector: Vector) -> tuple[float, ...]:
        """The point that stands for all in which only inactive genes differ."""
        ...


def gene_values(space: Space, vector: Vector) -> dict[str, Any]:
    """Name -> value of every gene that counts at a point of the unit cube."""
    axes = list(zip(space.coordinates, vector, strict=True))
    found = {axis.name: axis.gene.value(unit) for axis, unit in axes}
    if not isinstance(space, ConditionalSpace):
        return found
    off = space.left_out(vector)
    found |= {axis.name: axis.model not in off for axis in space.coordinates if axis.is_switch}
    inactive = {space.coordinates[number].name for number in space.inactive(vector)}
    return {name: value for name, value in found.items() if name not in inactive}


@dataclass(frozen=True)
class _Site:
    """A place in the template that holds a gene, and the coordinates it draws from."""

    path: Path
    gene: RangeGene | ChoiceGene
    filters: tuple[str, ...]  # what all but the last of the axes are for
    axes: tuple[tuple[int, ...], ...]  # [filter or rest][layer group] -> index of the coordinate
    setting: Path | None  # the place of the parameter that it is a value of, or a part of one


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
    _sites: tuple[_Site, ...] = field(repr=False)
    _switches: Mapping[str, int] = field(repr=False)  # optional model -> its axis
    _unread: Mapping[str, frozenset[Path]] = field(repr=False)  # merge method -> settings with genes

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
        coordinates: list[Coordinate] = []
        sites: list[_Site] = []
        axis_of_name: dict[str, int] = {}
        named: dict[str, tuple[Path, RangeGene | ChoiceGene]] = {}
        labels = template.labels()
        problems: list[Problem] = []
        if not isinstance(template.base_model, str | None):
            message = "cannot be a gene; name one model, and let the sources be genes"
            problems.append(Problem(("base_model",), message))
        for path, node in find_genes(template.document):
            gene = parse_gene(node, path)
            setting = template.setting_at(path)
            depth = layer_count if path != _METHOD else stacked_depth(template.document, layer_count)
            problems += [Problem(path, text) for text in _misplaced(gene, path, setting, depth)]
            if gene.name is not None:
                first, shared = named.setdefault(gene.name, (path, gene))
                if gene != shared:
                    message = f"shares its value with {format_place(first)}, whose name it has, and is not the same"
                    problems.append(Problem(path, f"{message}. Write the same in both, or another name"))
            model = setting.model if setting is not None and isinstance(setting.model, str) else None
            base_name = gene.name or _site_name(path, setting, labels.get(model or ""))
            axes = []
            filters, each = _filters(gene, kinds)
            for part in each:
                suffix = f".{part}" if part else ""
                layer_suffixes = _layer_suffixes(gene, depth or layer_count)
                outside = part in kinds.outside  # in no layer, so that one gene is all there is to it
                names = [base_name + suffix + ("" if outside else layer_suffix) for layer_suffix in layer_suffixes]
                for name, layer_suffix in dict(zip(names, layer_suffixes, strict=True)).items():
                    if name not in axis_of_name:
                        axis_of_name[name] = len(coordinates)
                        layers = None if outside else layer_suffix.removeprefix(".") or None
                        coordinates.append(Coordinate(name, gene, setting.name if setting else None, model, layers))
                    elif gene.name is None:
                        raise ConfigError(Problem(path, f"two genes are called {name}; give one a name"))
                axes.append(tuple(axis_of_name[name] for name in names))
            sites.append(_Site(path, gene, filters, tuple(axes), None if setting is None else setting.place))
        if problems:
            raise ConfigError(*problems)
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
            _sites=tuple(sites),
            _switches=switches,
            _unread={
                method: places & {site.setting for site in sites if site.setting is not None}
                for method, places in unread_settings(template).items()
            },
        )

    def decode(self, vector: Vector) -> RecipeMapping:
        """The standard recipe at `vector`, shape (genes,), each in [0, 1]."""
        if len(vector) != len(self.coordinates):
            raise ValueError(f"expected {len(self.coordinates)} genes, got {len(vector)}")
        return self.recipe_of([axis.gene.value(unit) for axis, unit in zip(self.coordinates, vector, strict=True)])

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
            if site.path == _METHOD:
                recipe["merge_method"] = method
                continue
            if site.setting in unread:
                continue
            per_filter = [self._site_value(site, axes, values) for axes in site.axes]
            grouped = grouped or isinstance(per_filter[0], LayerGroups)
            if not site.filters:
                value: Any = per_filter[0]
            else:
                value = [{"filter": name, "value": part} for name, part in zip(site.filters, per_filter, strict=False)]
                value.append({"value": per_filter[-1]})
            put(recipe, site.path, value)
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
        return self._switched_off([axis.gene.value(unit) for axis, unit in zip(self.coordinates, vector, strict=True)])

    def inactive(self, vector: Vector) -> frozenset[int]:
        """The genes that count for nothing at a point: of models left out, or that its method does not read."""
        return self.inactive_on(None, vector) if self.is_conditional else frozenset()

    def inactive_on(self, path: Collection[int] | None, vector: Vector) -> frozenset[int]:
        """The genes that count for nothing in some layers of the merge, see `recipe_on`."""
        values = [axis.gene.value(unit) for axis, unit in zip(self.coordinates, vector, strict=True)]
        off = set(self._switched_off(values))
        active = set(self._switches.values())
        method = self._method(values)
        used = method.values if isinstance(method, LayerGroups) else (method,)
        unread = frozenset.intersection(*(self._unread.get(name, frozenset()) for name in used))
        for site in self._sites:
            model = value_at(self.template.document, (*site.path[: _entry_length(site.path)], "model"))
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
        genes = [self._site_value(site, site.axes[0], values) for site in self._sites if site.path == _METHOD]
        found: str | LayerGroups = genes[0] if genes else self.template.document["merge_method"]
        return found

    def _site_value(self, site: _Site, axes: tuple[int, ...], values: Sequence[Any]) -> Any:
        own = [values[axis] for axis in axes]
        layers = site.gene.layers
        if layers is None:
            return own[0]
        return own if isinstance(layers, Knots) else LayerGroups(tuple(own))

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


def _entry_length(path: Path) -> int:
    """How much of a place is the entry of a model; none of it where it is of none."""
    return next((number + 2 for number, key in enumerate(path) if key in ("models", "sources")), 0)


def _site_name(path: Path, setting: ParameterSetting | None, label: str | None) -> str:
    if setting is None:
        return format_place(path)
    name = setting.name + (f"[{label}]" if label else "")
    return ".".join(filter(None, (format_place(setting.part), name, format_place(path[len(setting.place) :]))))


def _filters(gene: RangeGene | ChoiceGene, kinds: TensorKinds) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The filters of a gene's entries but for the last, which has none, and the names of the parts of all."""
    filters = gene.filters if isinstance(gene, RangeGene) else ()
    if filters == "each_tensor":
        return kinds.filters[:-1], kinds.filters
    return (filters, (*filters, "rest")) if filters else ((), ("",))


def _layer_suffixes(gene: RangeGene | ChoiceGene, layer_count: int) -> list[str]:
    layers = gene.layers
    if layers is None:
        return [""]
    if isinstance(layers, Knots):
        return [f".knot{index}" for index in range(layers.knots)]
    count = layers.blocks if isinstance(layers, Blocks) else layer_count
    bounds = group_bounds(layer_count, min(count, layer_count))
    return [f".{GROUP}{low}-{high - 1}" for low, high in bounds]


def stacked_depth(document: Mapping[str, Any], layer_count: int) -> int:
    """How many layers the result of a recipe has; 0 where genes decide it, or a tower of several has layers."""
    if "slices" not in document:
        return layer_count if "models" in document else 0
    ranges = [part["sources"][0]["layer_range"] for part in document["slices"]]
    if any(isinstance(bound, Mapping) for layers in ranges for bound in layers):
        return 0
    return sum(high - low for low, high in ranges)


def _misplaced(
    gene: RangeGene | ChoiceGene, path: Path, setting: ParameterSetting | None, layer_count: int
) -> Iterator[str]:
    filters = gene.filters if isinstance(gene, RangeGene) else ()
    if path == _METHOD and gene.layers is not None:
        if any(str(choice) not in METHODS for choice in getattr(gene, "choices", ())):
            yield "groups of layers take methods of ours; remove layers, or your own methods"
        if not layer_count:
            yield "a method per group of layers needs a recipe of models, or slices whose layer ranges are no genes"
            return
    elif (gene.layers is not None or filters) and setting is None:
        yield "layers and filters belong to merge parameters; remove them here"
    if isinstance(gene.layers, Blocks) and gene.layers.blocks > layer_count:
        found = f"layers.blocks is {gene.layers.blocks}, but the models have {layer_count} layers"
        yield f"{found}; use at most {layer_count}"
    if isinstance(gene.layers, Knots) and gene.layers.knots > max(layer_count, _FEWEST_KNOTS):
        found = f"layers.knots is {gene.layers.knots}, but the models have {layer_count} layers"
        yield f"{found}, so that some change nothing; use at most {max(layer_count, _FEWEST_KNOTS)}"
    if isinstance(gene.layers, Blocks | str) and path[0] == "modules":
        yield "groups of layers become slices of a recipe without modules; use layers: {knots: N} here"
    if filters and path[-1] == "value":
        yield "filters inside a list of {filter, value} entries; write the filter on the entry"
