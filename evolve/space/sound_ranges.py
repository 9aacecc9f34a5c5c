"""The part of a gene's range in which its method is defined: `della` needs room around a density for its epsilon."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evolve.problems import Place
from evolve.space.genes import Gene, RangeGene, find_genes, looks_like_gene, parse_gene
from evolve.space.template import Template
from merge_core import METHODS
from merge_core.methods import Method
from merge_core.recipe.places import ParameterSetting

POINTS = 64  # of a range that are looked at, to either side
HALVINGS = 12


def sound_range(gene: Gene, setting: ParameterSetting | None, template: Template) -> Gene:
    """The gene without the ends of its range at which a method fails with some values of the model's other parameters.

    Args:
        gene: of the setting's value, or of a part of it.
        setting: of a parameter; None where the gene is none's.
        template: what says what the other parameters can be.

    Returns:
        The gene as it is where no end fails, or where its middle does, too.
    """
    if setting is None or not isinstance(gene, RangeGene) or gene.step is not None:
        return gene
    checks = list(_checks(setting, template))
    middle = gene.init if gene.init is not None else (gene.low + gene.high) / 2

    def is_sound(value: float) -> bool:
        return all(check({**others, setting.name: value}) is None for check, others in checks)

    if not checks or not is_sound(middle):
        return gene
    low, high = (_last_sound(is_sound, middle, end) for end in (gene.low, gene.high))
    return gene.model_copy(update={"low": low, "high": high}) if low < high else gene


def narrowed_ranges(template: Template) -> Iterator[tuple[Place, RangeGene]]:
    """The genes whose ranges are searched in part, as they are searched; and where they stand."""
    for place, node in find_genes(template.document):
        gene = parse_gene(node, place)
        searched = sound_range(gene, template.setting_at(place), template)
        if searched != gene and isinstance(searched, RangeGene):
            yield place, searched


def _last_sound(is_sound: Callable[[float], bool], middle: float, end: float) -> float:
    """The point farthest from the middle up to which all are sound."""
    points = [middle + (end - middle) * place / POINTS for place in range(POINTS)] + [end]
    failing = next((place for place, point in enumerate(points) if not is_sound(point)), None)
    if failing is None:
        return end
    sound, unsound = points[failing - 1], points[failing]
    for _ in range(HALVINGS):
        between = (sound + unsound) / 2
        sound, unsound = (between, unsound) if is_sound(between) else (sound, between)
    return sound


def _checks(
    setting: ParameterSetting, template: Template
) -> Iterator[tuple[Callable[[Mapping[str, Any]], str | None], dict[str, float]]]:
    """What says whether a model's parameters go together, with all ends of what the others can be."""
    for method in (METHODS[name] for name in template.methods if name in METHODS):
        if method.fault is None or setting.name not in method.names("model"):
            continue
        others = {name: _ends(name, setting, method, template) for name in method.names("model")}
        del others[setting.name]
        for values in itertools.product(*others.values()):
            yield method.fault, dict(zip(others, values, strict=True))


def _ends(name: str, beside: ParameterSetting, method: Method, template: Template) -> list[float]:
    """The least and the largest value of a parameter of the same model; its default where none is set."""
    found: list[float] = []
    for setting in template.settings:
        if setting.name == name and (setting.model in (beside.model, None) or beside.model is None):
            found += _numbers(setting.value)
    default = method.by_name[name].default
    ends = {min(found), max(found)} if found else {float(default) if isinstance(default, int | float) else 1.0}
    return sorted(ends)


def _numbers(value: object) -> Iterator[float]:
    """All numbers that a setting's value names, and the ends of its ranges."""
    parts: list[object] = list(value) if isinstance(value, list | tuple) else []
    if isinstance(value, Mapping):
        parts = [value.get(key) for key in (("low", "high") if looks_like_gene(value) else ("value",))]
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
    for part in parts:
        yield from _numbers(part)
