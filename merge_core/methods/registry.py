"""The table of merge methods, to which every family's file adds its rows, and anyone else's in the same way."""

from __future__ import annotations

from merge_core.methods.method import Method
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
