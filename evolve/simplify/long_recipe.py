"""The numbers of a search's best recipe, tensor by tensor, whatever way it writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evolve.preflight.prepare import Prepared
from evolve.simplify.structures import Cell, Site, tensor_weights
from evolve.space.genes import Path, RangeGene, find_genes, parse_gene
from merge_core import documents_of, plan_recipes
from merge_core.checkpoint.layout import checkpoint_layout
from merge_core.recipe.places import ParameterSetting


def long_sites(prepared: Prepared, recipe: Mapping[str, Any]) -> list[Site]:
    """Every parameter of a model that the search looked for, with what its best recipe has for every tensor.

    Args:
        prepared: the search.
        recipe: its best.
    """
    found: dict[Path, tuple[ParameterSetting, list[RangeGene]]] = {}
    for path, node in find_genes(prepared.template.document):
        gene, setting = parse_gene(node, path), prepared.template.setting_at(path)
        if isinstance(gene, RangeGene) and setting is not None and isinstance(setting.model, str):
            found.setdefault(setting.place, (setting, []))[1].append(gene)
    values = _values(prepared, recipe)
    weights = tensor_weights(prepared.checkpoints, prepared.space.base_model)
    sites = []
    for setting, genes in found.values():
        own = values.get((str(setting.model), setting.name), {})
        known = weights[str(setting.model)]
        shared = {cell: value for cell, value in own.items() if cell in known}
        if shared:
            bounds = {"low": min(gene.low for gene in genes), "high": max(gene.high for gene in genes)}
            sites.append(Site(setting.place, genes[0].model_copy(update=bounds), shared, known))
    return sites


def other_settings(prepared: Prepared, sites: Sequence[Site], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path → value, of every gene that is none of the sites': it keeps what the best recipe has."""
    kept: dict[str, Any] = {}
    for path, _ in find_genes(prepared.template.document):
        if not any(path[: len(site.path)] == site.path for site in sites):
            kept[".".join(("recipe", *map(str, path)))] = _at(recipe, path)
    return kept


def count_numbers(node: Any, inside: bool = False) -> int:
    """How many numbers a recipe's parameters hold."""
    if isinstance(node, Mapping):
        return sum(count_numbers(child, inside or key == "parameters") for key, child in node.items())
    if isinstance(node, list | tuple):
        return sum(count_numbers(child, inside) for child in node)
    return int(inside and isinstance(node, int | float) and not isinstance(node, bool))


def _values(prepared: Prepared, recipe: Mapping[str, Any]) -> dict[tuple[str, str], dict[Cell, float]]:
    """Model and parameter → kind of tensor and layer → number."""
    base = prepared.space.base_model or prepared.space.models[0]
    layout = checkpoint_layout(prepared.checkpoints[base])
    cells: dict[str, Cell] = {
        name: (inner, number) for number, layer in enumerate(layout.layers) for inner, name in layer.items()
    }
    cells |= {name: (rootless, None) for part in (layout.before, layout.after) for rootless, name in part.items()}
    plan = plan_recipes(documents_of(recipe), prepared.checkpoints, prepared.config.seed)
    found: dict[tuple[str, str], dict[Cell, float]] = {}
    for job in plan.jobs:
        for source in job.inputs:
            for name, value in source.parameters:
                if job.output in cells and isinstance(value, int | float):
                    found.setdefault((source.model, name), {})[cells[job.output]] = float(value)
    return found


def _at(node: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        node = node[part]
    return node
