"""Where the genes of a recipe stand, and which axes of the unit cube they draw from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.problems import ConfigError, Place, Problem, format_place
from evolve.space.genes import Blocks, Gene, Knots, RangeGene, find_genes, parse_gene
from evolve.space.layer_slices import LayerGroups, group_bounds
from evolve.space.sound_ranges import sound_range
from evolve.space.space import Coordinate
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from merge_core import METHODS
from merge_core.recipe.places import ParameterSetting

METHOD: Place = ("merge_method",)
GROUP = "layers"  # before the first and the last layer in the name of a gene of a group of them
_FEWEST_KNOTS = 2


@dataclass(frozen=True)
class GeneSite:
    """A place in a recipe template that holds a gene.

    Attributes:
        place: where in the template.
        gene: what stands there.
        filters: what all but the last of the axes are for.
        axes: [filter or rest][layer group] -> index of the coordinate.
        setting: the place of the parameter that it is a value of, or a part of one.
    """

    place: Place
    gene: Gene
    filters: tuple[str, ...]
    axes: tuple[tuple[int, ...], ...]
    setting: Place | None

    @property
    def has_groups(self) -> bool:
        """Whether groups of layers have values of their own, which become slices."""
        return self.gene.layers is not None and not isinstance(self.gene.layers, Knots)

    def value(self, values: Sequence[Any]) -> Any:
        """What stands here in the recipe in which all genes have these values; `LayerGroups` where it has groups."""
        parts = [self._part(axes, values) for axes in self.axes]
        if not self.filters:
            return parts[0]
        named = [{"filter": name, "value": part} for name, part in zip(self.filters, parts, strict=False)]
        return [*named, {"value": parts[-1]}]

    def _part(self, axes: Sequence[int], values: Sequence[Any]) -> Any:
        own = [values[axis] for axis in axes]
        if self.gene.layers is None:
            return own[0]
        return LayerGroups(tuple(own)) if self.has_groups else own


def find_sites(
    template: Template, layer_count: int, kinds: TensorKinds
) -> tuple[tuple[GeneSite, ...], list[Coordinate]]:
    """The genes of a recipe template, and the axes that they draw from.

    Args:
        template: the recipe.
        layer_count: layers of the models, for `layers: {blocks: N}` and `layers: each`.
        kinds: of the models' tensors, for `filters: each_tensor`.

    Raises:
        ConfigError: a gene stands where its options make no sense.
    """
    problems: list[Problem] = []
    if not isinstance(template.base_model, str | None):
        message = "cannot be a gene; name one model, and let the sources be genes"
        problems.append(Problem(("base_model",), message))
    axes = _Axes(template.labels(), kinds)
    sites: list[GeneSite] = []
    named: dict[str, tuple[Place, Gene]] = {}
    for place, node in find_genes(template.document):
        setting = template.setting_at(place)
        gene = sound_range(parse_gene(node, place), setting, template)
        depth = layer_count if place != METHOD else stacked_depth(template.document, layer_count)
        problems += [Problem(place, text) for text in _misplaced(gene, place, setting, depth)]
        if gene.name is not None:
            first, shared = named.setdefault(gene.name, (place, gene))
            if gene != shared:
                message = f"shares its value with {format_place(first)}, whose name it has, and is not the same"
                problems.append(Problem(place, f"{message}. Write the same in both, or another name"))
        sites.append(axes.site(place, gene, setting, depth or layer_count))
    if problems:
        raise ConfigError(*problems)
    return tuple(sites), axes.coordinates


def stacked_depth(document: Mapping[str, Any], layer_count: int) -> int:
    """How many layers the result of a recipe has; 0 where genes decide it, or a tower of several has layers."""
    if "slices" not in document:
        return layer_count if "models" in document else 0
    ranges = [part["sources"][0]["layer_range"] for part in document["slices"]]
    if any(isinstance(bound, Mapping) for layers in ranges for bound in layers):
        return 0
    return sum(high - low for low, high in ranges)


class _Axes:
    """The axes of the unit cube, which grow as the genes of a recipe are read; genes of one name share theirs."""

    def __init__(self, labels: Mapping[str, str], kinds: TensorKinds) -> None:
        self.coordinates: list[Coordinate] = []
        self._numbers: dict[str, int] = {}  # name -> axis
        self._labels = labels
        self._kinds = kinds

    def site(self, place: Place, gene: Gene, setting: ParameterSetting | None, depth: int) -> GeneSite:
        """A gene with its axes.

        Raises:
            ConfigError: another gene has the same name without meaning to share its value.
        """
        model = setting.model if setting is not None and isinstance(setting.model, str) else None
        base_name = gene.name or _site_name(place, setting, self._labels.get(model or ""))
        filters, parts = self._filters(gene)
        axes: list[tuple[int, ...]] = []
        for part in parts:
            outside = part in self._kinds.outside  # of no layer, so that one gene is all there is to it
            groups = ["" if outside else group for group in _layer_groups(gene, depth)]
            names = [".".join(filter(None, (base_name, part, group))) for group in groups]
            for name, group in dict(zip(names, groups, strict=True)).items():
                if name not in self._numbers:
                    self._numbers[name] = len(self.coordinates)
                    parameter = setting.name if setting is not None else None
                    self.coordinates.append(Coordinate(name, gene, parameter, model, group or None))
                elif gene.name is None:
                    raise ConfigError(Problem(place, f"two genes are called {name}; give one a name"))
            axes.append(tuple(self._numbers[name] for name in names))
        return GeneSite(place, gene, filters, tuple(axes), None if setting is None else setting.place)

    def _filters(self, gene: Gene) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The filters of a gene's entries but for the last, which has none, and the names of the parts of all."""
        filters = gene.filters if isinstance(gene, RangeGene) else ()
        if filters == "each_tensor":
            return self._kinds.filters[:-1], self._kinds.filters
        return (filters, (*filters, "rest")) if filters else ((), ("",))


def _site_name(place: Place, setting: ParameterSetting | None, label: str | None) -> str:
    if setting is None:
        return format_place(place)
    name = setting.name + (f"[{label}]" if label else "")
    return ".".join(filter(None, (format_place(setting.part), name, format_place(place[len(setting.place) :]))))


def _layer_groups(gene: Gene, layer_count: int) -> list[str]:
    """What a gene's values over the layers are called; one without a name where it has one for all."""
    if gene.layers is None:
        return [""]
    if isinstance(gene.layers, Knots):
        return [f"knot{index}" for index in range(gene.layers.knots)]
    count = gene.layers.blocks if isinstance(gene.layers, Blocks) else layer_count
    bounds = group_bounds(layer_count, min(count, layer_count))
    return [f"{GROUP}{low}-{high - 1}" for low, high in bounds]


def _misplaced(gene: Gene, place: Place, setting: ParameterSetting | None, layer_count: int) -> Iterator[str]:
    filters = gene.filters if isinstance(gene, RangeGene) else ()
    if place == METHOD and gene.layers is not None:
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
    if isinstance(gene.layers, Blocks | str) and place[0] == "modules":
        yield "groups of layers become slices of a recipe without modules; use layers: {knots: N} here"
    if filters and place[-1] == "value":
        yield "filters inside a list of {filter, value} entries; write the filter on the entry"
