"""Genes of parameters that a merge method does not read: a mistake where none does, left out where only some do.

Without this a search would spend candidates on numbers that change nothing, and its recipe would carry them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from evolve.problems import Place, Problem
from evolve.space.genes import find_genes, parse_gene
from evolve.space.template import Template, possible_names
from merge_core import METHODS, Method
from merge_core.recipe.places import ParameterSetting, named_models, value_at

NO_EFFECT = "int8_mask"  # a parameter that is accepted
_EXAMPLES = 4  # methods that a message names


def unread_settings(template: Template) -> dict[str, frozenset[Place]]:
    """Merge method -> the places of the settings that it does not read, of every method that the recipe may have."""
    methods = {name: METHODS[name] for name in template.methods if name in METHODS}
    return {
        name: frozenset(one.place for one in template.settings if not _is_read(one, method, template))
        for name, method in methods.items()
    }


def dead_genes(template: Template, genes: Mapping[Place, str | None]) -> Iterator[Problem]:
    """A problem for every gene that changes no recipe which can come of the template.

    Args:
        template: the recipe.
        genes: place -> name, by which genes share their value: one of them that is read is enough.
    """
    unread = unread_settings(template)
    if not unread or len(unread) < len(template.methods):  # an unknown method, which is a mistake of its own
        return
    always = frozenset.intersection(*unread.values())
    dead: dict[Place, ParameterSetting] = {}
    alive: set[str | None] = set()
    for place, name in genes.items():
        setting = template.setting_at(place)
        if setting is not None and setting.place in always:
            dead[place] = setting
        else:
            alive.add(name)
    for place, setting in dead.items():
        name = genes[place]
        if name is None or name not in alive:
            yield Problem(place, _message(setting, list(unread)))


def filters_of_nothing(template: Template, tensors: Collection[str]) -> Iterator[Problem]:
    """A problem for every filter of a gene that decides for no tensor: in the name of none, or in none before others.

    Args:
        template: the recipe.
        tensors: names of those that its models have.
    """
    for place, node in find_genes(template.document):
        filters = getattr(parse_gene(node, place), "filters", ())
        if isinstance(filters, str):
            continue
        decisive = {next((one for one in filters if one in name), None) for name in tensors}
        for index, one in enumerate(filters):
            if one not in decisive:
                found = "no tensor's name" if not any(one in name for name in tensors) else "no name before the others"
                yield Problem((*place, "filters", index), f"{one!r} is in {found}, so that its gene changes nothing")


def partly_read(template: Template, genes: Iterable[Place]) -> str | None:
    """One line that says which genes only some of the merge methods read; None where all read all."""
    unread = unread_settings(template)
    readers: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for place in genes:
        setting = template.setting_at(place)
        if setting is not None:
            found = tuple(method for method, places in unread.items() if setting.place not in places)
            if 0 < len(found) < len(unread):
                readers[found][setting.name] = None
    if not readers:
        return None
    said = "; ".join(f"{', '.join(names)}: only by {' and '.join(found)}" for found, names in readers.items())
    return f"genes that not every merge_method reads, {said}. Recipes of the others leave them out"


def _is_read(setting: ParameterSetting, method: Method, template: Template) -> bool:
    """Whether it decides anything where it stands."""
    parameter = method.by_name.get(setting.name)
    if parameter is None or setting.name == NO_EFFECT:
        return False
    if setting.model is not None:  # one of the base's own, or a model's own of what holds for all, is not looked at
        return parameter.scope == "model" and not _is_base(setting.model, setting.part, method, template)
    return not _is_hidden(setting, method, template)


def _is_base(model: Any, part: Place, method: Method, template: Template) -> bool:
    base = value_at(template.document, (*part, "base_model")) or template.base_model
    return method.base != "unused" and possible_names(model) == [base]


def _is_hidden(shared: ParameterSetting, method: Method, template: Template) -> bool:
    """Whether all that a shared setting is for have one of their own, which stands before it."""
    document = template.document
    nearer = {
        one.place[:-2]
        for one in template.settings
        if one.name == shared.name and one.place != shared.place and _is_for_all_tensors(one.value)
    }
    if not nearer:
        return False
    sources = [one for one in named_models(document) if one.merged and one.place[-1] == "model"]
    base_is_added = template.base_model is not None and template.base_model not in [one.value for one in sources]
    if method.by_name[shared.name].scope == "global":
        readers = {one.place[:-3] for one in sources}
    elif method.base == "unused" and base_is_added:
        return False  # which is merged as any other model, with what is shared
    else:
        readers = {one.place[:-1] for one in sources if not _is_base(one.value, one.place[:-3], method, template)}
    inner = len(shared.part)
    return all(
        any(reader[:end] in nearer for end in range(inner + 1, len(reader) + 1))
        for reader in readers
        if reader[:inner] == shared.part
    )


def _is_for_all_tensors(value: Any) -> bool:
    """Whether a setting leaves nothing to those that stand behind it."""
    entries = value if isinstance(value, list) else [value]
    filters = [entry.get("filter") if isinstance(entry, Mapping) else None for entry in entries]
    return None in filters or "*" in filters


def _message(setting: ParameterSetting, methods: list[str]) -> str:
    name, own = setting.name, [METHODS[method].by_name.get(setting.name) for method in methods]
    reads = f"{methods[0]} does not read" if len(methods) == 1 else f"none of {', '.join(methods)} reads"
    if setting.model is None and any(own) and name != NO_EFFECT:
        return f"{reads} {name} here: all that it could be for have a value of their own. Remove one of the two"
    if any(parameter is not None and parameter.scope == "model" for parameter in own):
        return f"{reads} the {name} of its base model, so that this gene changes nothing. Remove it"
    if any(own) and name != NO_EFFECT:
        return f"{reads} a model's own {name}: one holds for all. Move it to the recipe's parameters"
    others = [method.name for method in METHODS.values() if name in method.by_name and name != NO_EFFECT]
    able = f", or use a method that reads it, such as {', '.join(others[:_EXAMPLES])}" if others else ""
    return f"{reads} {name}, so that this gene changes nothing. Remove it{able}"
