"""The value of a parameter for one tensor: scalars, gradients over layers, filters on names, precedence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from merge_core.errors import MergeError
from merge_core.methods import Parameter, Value
from merge_core.methods.method import Required
from merge_core.recipe.parts import Parameters, Scalar, Setting


def layer_position(layer: int, count: int) -> float:
    """``t`` of layer ``layer`` of an output slice of ``count`` layers: ``k/(n−1)``, and 1 when ``n = 1``."""
    return 1.0 if count == 1 else layer / (count - 1)


def interpolate(gradient: Sequence[Any], t: float) -> Any:
    """Read a gradient at position ``t`` in [0, 1].

    With ``x = t·(n−1)`` and ``i = ⌊x⌋`` numbers give ``(1−(x−i))·v[i] + (x−i)·v[min(i+1, n−1)]``; anything
    that is not a number gives ``v[i]``.
    """
    x = t * (len(gradient) - 1)
    index = math.floor(x)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in gradient):
        return gradient[index]
    fraction = x - index
    return (1 - fraction) * gradient[index] + fraction * gradient[min(index + 1, len(gradient) - 1)]


def convert(value: Scalar, kind: str) -> Value:
    """A scalar of a recipe as the number or flag a method takes; ``"1e-5"`` and ``true`` are numbers too."""
    if isinstance(value, str):
        lowered = value.lower()
        value = lowered == "true" if lowered in ("true", "false") else float(value)
    if kind == "flag":
        return bool(value)
    return int(value) if kind == "integer" else float(value)


class MissingParameterError(MergeError):
    """A recipe gives no value for a parameter that its method requires."""


Content = Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    filter: str | None
    content: Content


class ParameterReader:
    """One parameter in one place of a recipe (a source of a slice), read for many tensors.

    Args:
        parameter: what is read.
        levels: the parameters of the recipe that apply here, most specific first.
        owner: the model the value is for, or None for a global parameter; only for messages.

    Attributes:
        constant: the value when it is the same for every tensor (None is a value: "not applied").
        varies: whether the value depends on the tensor.
    """

    def __init__(self, parameter: Parameter, levels: Sequence[Parameters], owner: str | None) -> None:
        self.parameter = parameter
        self.owner = owner
        settings = [setting for level in levels if (setting := level.get(parameter.name)) is not None]
        self._entries = [entry for setting in settings for entry in _entries(setting, parameter.kind)]
        self.constant: Value | None = None
        self.varies = True
        first = self._entries[0] if self._entries else None
        if first is not None and first.filter is None and not isinstance(first.content, tuple):
            self.constant, self.varies = first.content, False
        elif first is None and not isinstance(parameter.default, Required):
            self.constant, self.varies = parameter.default, False

    def read(self, tensor_name: str, t: float) -> Value | None:
        """The value for a tensor at layer position ``t``.

        Raises:
            MissingParameterError: nothing in the recipe gives a value, and there is no default.
        """
        if not self.varies:
            return self.constant
        # Levels follow one another in one list: where no entry of a level matches, the next level is asked.
        for entry in self._entries:
            if entry.filter is None or entry.filter in tensor_name:
                content = entry.content
                return interpolate(content, t) if isinstance(content, tuple) else content
        default = self.parameter.default
        if isinstance(default, Required):
            name = self.parameter.name
            whose = f'model "{self.owner}": ' if self.owner is not None else ""
            place = "the model's parameters" if self.owner is not None else "parameters"
            raise MissingParameterError(
                f"{whose}missing required parameter {name} for {tensor_name}. Add {name}: 0.5 to {place}"
            )
        return default

    def possible(self) -> tuple[Value | None, ...]:
        """Every value that some tensor can get, the knots of gradients instead of what lies between them."""
        found: list[Value | None] = []
        for entry in self._entries:
            found += entry.content if isinstance(entry.content, tuple) else (entry.content,)
            if entry.filter is None:
                return tuple(found)
        default = self.parameter.default
        return (*found, *(() if isinstance(default, Required) else (default,)))


def _entries(setting: Setting, kind: str) -> list[_Entry]:
    entries = []
    for entry in setting.entries:
        content: Content
        if isinstance(entry.value, tuple):
            content = tuple(convert(value, kind) for value in entry.value)
        else:
            content = convert(entry.value, kind)
        entries.append(_Entry(None if entry.filter == "*" else entry.filter, content))
        if entries[-1].filter is None:
            break  # nothing after an entry without filter is ever asked
    return entries
