"""What a schema refuses, in the words of the rest of this program: what was found, what is expected, the fix."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from evolve.problems import HasProblems, Place, Problem, problems_within
from evolve.scoring import KINDS, TaskConfig
from evolve.scoring.scorers.user_functions import FUNCTION_PATTERN

Model = TypeVar("Model", bound=BaseModel)

_SCALARS = frozenset({"bool", "float", "int", "str"})  # forms, at the end of pydantic's locations


def validated(model: type[Model], content: Any, problems: list[Problem], context: Any = None) -> Model | None:
    """The content as a model; None where it is none, and why is added to problems.

    Args:
        model: what it must be.
        content: what was written.
        problems: what is wrong is added to it.
        context: for the model's validators.
    """
    try:
        return model.model_validate(content, context=context)
    except ValidationError as error:
        problems += schema_problems(error, content, model)
        return None


def schema_problems(error: ValidationError, content: Any, *models: type[BaseModel]) -> Iterator[Problem]:
    """Each mistake that pydantic found, once.

    Args:
        error: pydantic's.
        content: what was validated.
        models: of what may stand there.
    """
    details = list(_of_the_nearest_form(error.errors(include_url=False), content))
    locations = [detail["loc"] for detail in details]
    for detail in _one_for_each_place(details, content):
        location = detail["loc"]
        if any(len(other) > len(location) and other[: len(location)] == location for other in locations):
            continue  # a list is short because its members are wrong, which is said already
        place = _without_variants(location, content)
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, HasProblems):  # raised by a validator of ours
            yield from problems_within(cause, *place)
        else:
            yield Problem(place, _explain(detail, models))


def _of_the_nearest_form(details: Sequence[ErrorDetails], content: Any) -> Iterator[ErrorDetails]:
    """Of a mapping that may have several forms, and has none: what keeps it from the one that it comes nearest to."""
    forms: dict[Place, dict[str, list[ErrorDetails]]] = {}
    for detail in details:
        if form := _form_of(detail["loc"], content):
            place, name = form
            forms.setdefault(place, {}).setdefault(name, []).append(detail)
    nearest = {place: min(found, key=lambda name: _distance(place, found[name])) for place, found in forms.items()}
    for detail in details:
        form = _form_of(detail["loc"], content)
        if form is None or nearest[form[0]] == form[1]:
            yield detail


def _form_of(location: Place, content: Any) -> tuple[Place, str] | None:
    """Where a mapping stands that may have several forms, and of which of them a location tells; None of any other."""
    node = content
    for index, part in enumerate(location):
        if isinstance(node, Mapping):
            if part not in node:  # a key that is missing is the last part, and no class
                name = str(part)
                is_form = index < len(location) - 1 or name[:1].isupper() or "[" in name or name in _SCALARS
                return (location[:index], name) if is_form else None
            node = node[part]
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            return None
    return None


def _distance(place: Place, details: Sequence[ErrorDetails]) -> tuple[bool, int, int, int]:
    """How far a mapping is from a form: whether that is none of mappings, keys unknown, keys missing, all mistakes."""
    types = [detail["type"] for detail in details]
    other = any(len(detail["loc"]) == len(place) + 1 and detail["type"] != "value_error" for detail in details)
    return other, types.count("extra_forbidden"), types.count("missing"), len(types)


def _one_for_each_place(details: list[ErrorDetails], content: Any) -> Iterator[ErrorDetails]:
    """Where a value may have several forms and has none, pydantic says so for each: it is said once, of all of them."""
    places: dict[Place, list[ErrorDetails]] = {}
    for detail in details:
        places.setdefault(_without_variants(detail["loc"], content), []).append(detail)
    for found in places.values():
        if len(found) == 1 or any(detail["type"] in ("value_error", "missing", "extra_forbidden") for detail in found):
            yield from found
        else:
            expected = dict.fromkeys(
                _expected(detail).removeprefix("expected ").replace("must be", "a number") for detail in found
            )
            yield {**found[0], "type": "no_form", "msg": f"expected {' or '.join(expected)}"}


def _without_variants(location: Place, content: Any) -> Place:
    """Drop the names of union members, which pydantic puts into a location."""
    task_classes = {kind.config.__name__ for kind in KINDS.values()}
    kept: list[str | int] = []
    node = content
    for part in location:
        if isinstance(node, Mapping) and part not in node and (part != location[-1] or part in task_classes):
            continue
        if isinstance(node, str | int | float) and str(part)[0].isupper():  # a class that it is no value of: "Blocks"
            continue
        is_key = isinstance(node, Mapping) and part in node
        if isinstance(part, str) and not is_key and (set(" [-") & set(part) or part in _SCALARS):
            continue  # a form: "list[str]", "constrained-str"
        kept.append(part)
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int):
            node = node[part] if part < len(node) else None
    return tuple(kept)


def _explain(detail: ErrorDetails, models: Sequence[type[BaseModel]]) -> str:
    location = detail["loc"]
    fields = _fields_at(models, location[:-1])
    key = str(location[-1]) if location else ""
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, fields, n=1)
        return "unknown key. " + (f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(fields))}")
    if detail["type"] == "missing":
        return f"missing. {fields.get(key, '')}".strip()
    if detail["type"] == "value_error":  # without a place of its own
        return str(detail["ctx"]["error"])
    found = detail["input"]
    shown = (
        f"a mapping with keys {', '.join(map(str, found))}"
        if isinstance(found, dict)
        else json.dumps(found, default=str)
    )
    written = next((str(part) for part in reversed(location) if not str(part)[:1].isupper()), key)  # no class: "Blocks"
    example = _as_section(found, written, _models_at(models, location)) or fields.get(key, "")
    return f"{_expected(detail)}, got {shown}. {example}".strip()


def _as_section(found: Any, key: str, models: Sequence[type[BaseModel]]) -> str:
    """How a value is written that stands for a section: as the first of its settings that takes such a value."""
    if isinstance(found, Mapping | list | None):
        return ""
    for name, field in (item for model in models for item in model.model_fields.items()):
        try:
            TypeAdapter[Any](field.annotation or Any).validate_python(found, strict=True)
        except ValidationError:
            continue
        return f"Write {key}: {{{name}: {json.dumps(found, default=str)}}}"
    return ""


_EXPECTED = {
    "float_parsing": "expected a number, such as 0.5",
    "float_type": "expected a number, such as 0.5",
    "finite_number": "expected a finite number",
    "int_parsing": "expected a whole number, such as 100",
    "int_type": "expected a whole number, such as 100",
    "int_from_float": "expected a whole number, such as 100",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "string_too_short": "expected text of at least {min_length} characters",
    "string_pattern_mismatch": "expected text of the form {pattern}",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "tuple_type": "expected a list",
    "too_short": "expected at least {min_length}",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
    "literal_error": "expected {expected}",
}


def _expected(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if context.get("pattern") == FUNCTION_PATTERN:
        return "expected a function, module:name"
    known = _EXPECTED.get(detail["type"])
    if known is not None:
        return known.format(**context)
    message = detail["msg"]
    return message[0].lower() + message[1:]


def _fields_at(models: Sequence[type[BaseModel]], location: Place) -> dict[str, str]:
    """Names and descriptions of the fields that may stand at a place.

    Args:
        models: of the whole document.
        location: pydantic's, in which a member of a union goes by the name of its class.
    """
    return {
        name: field.description or ""
        for found in _models_at(models, location)
        for name, field in found.model_fields.items()
    }


def _models_at(models: Sequence[type[BaseModel]], location: Place) -> Sequence[type[BaseModel]]:
    """What may stand at a place."""
    for part in location:
        if isinstance(part, int):
            continue
        named = [variant for variant in models if variant.__name__ == part]
        inner = [field.annotation for variant in models if (field := variant.model_fields.get(part))]
        models = named or [found for annotation in inner for found in _models_in(annotation)]
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if annotation is TaskConfig:  # stands for every kind
        return [kind.config for kind in KINDS.values()]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part)]
