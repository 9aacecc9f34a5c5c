"""Where a recipe document names models and sets parameters.

For documents as YAML gives them, whose values may be missing, wrong, or put in later: a search's recipe has ranges
where numbers and names would stand. `Recipe` asks here too, so that a model is looked for in the same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.errors import Place


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A mention of a model.

    Attributes:
        place: where it stands.
        value: what stands there: a reference as text or map, or what the caller's documents have in its place.
        merged: whether its weights take part; else only its tokenizer or rows of single tokens do.
    """

    place: Place
    value: object
    merged: bool


def named_models(document: Mapping[str, Any]) -> Iterator[NamedModel]:
    """Every mention of a model: what is merged in the order of the file, then bases, then vocabularies."""
    for place in sorted(_places(document), key=lambda place: place[-1] == "base_model"):
        value = value_at(document, place)
        if value is not None:
            yield NamedModel(place, value, merged=True)
    for place in _vocabulary_places(document):
        value = value_at(document, place)
        if value is not None and value not in ("union", "base"):
            yield NamedModel(place, value, merged=False)


@dataclass(frozen=True, slots=True)
class ParameterSetting:
    """A setting of a parameter.

    Attributes:
        place: where it stands.
        part: the part of the document that it is for: all of it, a module, a slice.
        name: the parameter.
        model: what stands where its model is named; None where models share it.
        value: of the parameter.
    """

    place: Place
    part: Place
    name: str
    model: Any
    value: Any


def parameter_settings(document: Mapping[str, Any]) -> Iterator[ParameterSetting]:
    """Every setting of a parameter, the recipe's own first."""
    for part in _parts(document):
        yield from _settings_at(document, part, part)
        for key in ("models", "sources"):
            for index in _indices(document, (*part, key)):
                yield from _settings_at(document, part, (*part, key, index))


def _settings_at(document: Mapping[str, Any], part: Place, scope: Place) -> Iterator[ParameterSetting]:
    for name in _keys(document, (*scope, "parameters")):
        place = (*scope, "parameters", name)
        yield ParameterSetting(place, part, name, value_at(document, (*scope, "model")), value_at(document, place))


def value_at(document: object, place: Place) -> object:
    """What stands at a place; None where nothing does."""
    for part in place:
        if isinstance(document, Mapping):
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            return None
    return document


def _places(document: Mapping[str, Any]) -> Iterator[Place]:
    """The places of models that are merged, where a document has such parts."""
    for part in _parts(document):
        yield (*part, "base_model")
        for key in ("models", "sources"):
            for index in _indices(document, (*part, key)):
                yield (*part, key, index, "model")


def _parts(document: Mapping[str, Any]) -> Iterator[Place]:
    """The parts of a document that list models: all of it, its modules, the slices of either."""
    whole: Place = ()
    for outer in (whole, *[("modules", name) for name in _keys(document, ("modules",))]):
        yield outer
        yield from ((*outer, "slices", index) for index in _indices(document, (*outer, "slices")))


def _vocabulary_places(document: Mapping[str, Any]) -> Iterator[Place]:
    yield ("tokenizer_source",)
    yield ("tokenizer", "source")
    for token in _keys(document, ("tokenizer", "tokens")):
        place = ("tokenizer", "tokens", token, "source")
        source = value_at(document, place)
        of_another_token = isinstance(source, Mapping) and "kind" in source
        yield (*place, "model") if of_another_token else place


def _keys(document: object, place: Place) -> list[str]:
    found = value_at(document, place)
    return list(found) if isinstance(found, Mapping) else []


def _indices(document: object, place: Place) -> range:
    found = value_at(document, place)
    return range(len(found)) if isinstance(found, list) else range(0)
