"""The table of merge methods, to which every family's file adds its rows, and anyone else's in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from merge_core.methods.method import Method, Parameter
from merge_core.methods.shared_parameters import EACH_EXPERT

METHODS: dict[str, Method] = {}
"""Method name in a recipe → its row."""


def register(*methods: Method) -> None:
    """Add rows to the table.

    Raises:
        ValueError: a method of that name is there already.
    """
    for method in methods:
        if method.name in METHODS:
            raise ValueError(f'a merge method "{method.name}" is registered already. Choose another name')
        METHODS[method.name] = method


def is_parameter_of_any(name: str) -> bool:
    """Whether any method has it, or all: recipes people have carry parameters that their method does not use."""
    return name == EACH_EXPERT.name or any(name in method.by_name for method in METHODS.values())


def common_parameters() -> Mapping[str, Parameter]:
    """The parameters of all methods by name, with the widest bounds; without those that methods take differently."""
    found: dict[str, Parameter] = {EACH_EXPERT.name: EACH_EXPERT}
    differ = set()
    for method in METHODS.values():
        for parameter in method.parameters:
            known = found.setdefault(parameter.name, parameter)
            if known.kind != parameter.kind:
                differ.add(parameter.name)
            least, most = min(known.least, parameter.least), max(known.most, parameter.most)
            found[parameter.name] = replace(known, least=least, most=most)
    return {name: parameter for name, parameter in found.items() if name not in differ}
