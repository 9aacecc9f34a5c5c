"""YAML → `Parameters`: numbers, gradients and entries with filters."""

from __future__ import annotations

import math
from collections.abc import Mapping

from merge_core.bounds import ENTRIES, LARGEST_NUMBER
from merge_core.errors import Place, shown
from merge_core.methods import Method, Parameter, is_parameter_of_any
from merge_core.recipe.part_reader import Notes, PartReader
from merge_core.recipe.parts import ConditionalValue, Parameters, Scalar, Setting

EMPTY: Mapping[str, Parameter] = {}
FLAG_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "f", "n", "0"), False),
}
"""What people quote for true and false; unquoted, YAML 1.1 reads most of it so itself."""


class SettingsReader(PartReader):
    """Reads what a recipe says about parameters.

    Args:
        notes: where mistakes are noted.
        method: the recipe's, whose parameters they are; None where that is a mistake itself.
        common: what methods agree on about their parameters, by name: what is known where the method is not.
    """

    def __init__(self, notes: Notes, method: Method | None, common: Mapping[str, Parameter] = EMPTY) -> None:
        super().__init__(notes)
        self.method = method
        self.by_name = common if method is None else method.by_name

    def parameters(self, value: object, place: Place) -> Parameters:
        """A map from the method's parameters to what the recipe says about them."""
        if value is None:
            return Parameters()
        if not isinstance(value, Mapping):
            self.problem(place, f"expected a map from parameter names, got {shown(value)}. Example: {{weight: 0.5}}")
            return Parameters()
        items = []
        for name, content in value.items():
            is_checked = self.method is not None or bool(self.by_name)
            if is_checked and name not in self.by_name and not is_parameter_of_any(name):
                self.unknown_parameter(name, content, place)
                continue
            setting = self.setting(content, (*place, str(name)), self.by_name.get(name))
            if setting is not None:
                items.append((str(name), setting))
        return Parameters(tuple(items))

    def unknown_parameter(self, name: object, content: object, place: Place) -> None:
        """One of no method: ignored if it has a value that a parameter can have, as mergekit ignores it then."""
        of = "" if self.method is None else f" of {self.method.name}"
        text = f'unknown parameter "{name}"{of}.{self.fix(name, list(self.by_name) or ["int8_mask"])}'
        notes = Notes()
        SettingsReader(notes, None).setting(content, (), None)
        (self.problem if notes.problems else self.ignore)(place, text)

    def setting(self, value: object, place: Place, parameter: Parameter | None) -> Setting | None:
        if isinstance(value, Mapping):
            value = [value]
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            entries = self.entries(value, place, lambda item, at: self.conditional(item, at, parameter))
            return None if not entries else Setting(entries)
        content = self.value(value, place, parameter)
        return None if content is None else Setting((ConditionalValue(content),))

    def conditional(self, value: object, place: Place, parameter: Parameter | None) -> ConditionalValue | None:
        mapping = self.mapping(value, place, ("filter", "value"))
        if mapping is None:
            return None
        if "value" not in mapping:
            self.problem(place, "missing key value. Example: {filter: mlp, value: 0.5}")
            return None
        name_filter = self.text(mapping.get("filter"), (*place, "filter"))
        content = self.value(mapping["value"], (*place, "value"), parameter)
        return None if content is None else ConditionalValue(content, name_filter)

    def value(self, value: object, place: Place, parameter: Parameter | None) -> Scalar | tuple[Scalar, ...] | None:
        if isinstance(value, list):
            if not 0 < len(value) <= ENTRIES:
                found = f"a list of {len(value)} values" if value else "an empty list has no value"
                self.problem(place, f"{found}, expected 1 to {ENTRIES}. Example: [0, 0.5, 1]")
                return None
            scalars = [self.scalar(item, (*place, index), parameter) for index, item in enumerate(value)]
            return None if None in scalars else tuple(scalar for scalar in scalars if scalar is not None)
        return self.scalar(value, place, parameter)

    def scalar(self, value: object, place: Place, parameter: Parameter | None) -> Scalar | None:
        if not isinstance(value, (bool, int, float, str)):
            self.problem(
                place, f"expected a number, a list of numbers or {{filter, value}} entries, got {shown(value)}"
            )
            return None
        if isinstance(value, str) and parameter is not None and parameter.kind == "flag":
            value = _flag(value)
        if isinstance(value, str) and parameter is not None and not _is_number(value):
            expected, example = ("true or false", "true") if parameter.kind == "flag" else ("a number", "0.5")
            self.problem(place, f'expected {expected}, got "{value}". Example: {parameter.name}: {example}')
            return None
        number = _number(value)
        if number is not None and (fault := _fault(number, parameter)) is not None:
            self.problem(place, f"{fault}, got {shown(value)}")
            return None
        return value


def _flag(text: str) -> bool | str:
    return FLAG_WORDS.get(text.lower(), text)


def _is_number(text: str) -> bool:
    return _number(text) is not None or text.lower() in ("true", "false")


def _number(value: Scalar) -> int | float | None:
    """The number that a scalar is, or that a text says; None where it is none."""
    if not isinstance(value, str):
        return None if isinstance(value, bool) else value
    try:
        return float(value)
    except ValueError:
        return None


def _fault(number: int | float, parameter: Parameter | None) -> str | None:
    """What is wrong with a number, wherever it stands and as a value of its parameter."""
    if not abs(number) <= LARGEST_NUMBER:
        return f"expected a finite number of at most {LARGEST_NUMBER:g}, which float32 can hold"
    if parameter is not None and not parameter.least <= number <= parameter.most:
        bounds = f"from {parameter.least:g}" + (f" to {parameter.most:g}" if parameter.most < math.inf else "")
        return f"expected a number {bounds}"
    return None
