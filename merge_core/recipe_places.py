"""Where a recipe document names models and sets parameters.

For documents as YAML gives them, whose values may be missing, wrong, or put in later: a search's recipe has ranges
where numbers and names would stand. `Recipe` asks here too, so that a model is looked for in the same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Place = tuple[str | int, ...]
"""Keys and indices that lead to a part of a document: ``("models", 1, "model")``."""


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
    listed = [place for place in _places(document) if place[-1] == "model"]
    bases = [place for place in _places(document) if place[-1] == "base_model"]
    for place in (*listed, *bases):
        value = value_at(document, place)
        if value is not None:
            yield NamedModel(place, value, merged=True)
    for place in _vocabulary_places(document):
        value = value_at(document, place)
        if value is not None and value not in ("union", "base"):
            yield NamedModel(place, value, merged=False)


def parameter_at(document: Mapping[str, Any], place: Place) -> tuple[str, object] | None:
    """The parameter that a place belongs to and the value that names the model it is of, None where models share it.

    Returns:
        None where the place is none of a parameter.
    """
    if "parameters" not in place[:-1]:
        return None
    position = place.index("parameters")
    owner = value_at(document, place[:position])
    return str(place[position + 1]), owner.get("model") if isinstance(owner, Mapping) else None


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
    yield ("base_model",)
    for outer in ((), *(("modules", name) for name in _keys(document, ("modules",)))):
        for index in _indices(document, (*outer, "models")):
            yield (*outer, "models", index, "model")
        for index in _indices(document, (*outer, "slices")):
            yield (*outer, "slices", index, "base_model")
            for source in _indices(document, (*outer, "slices", index, "sources")):
                yield (*outer, "slices", index, "sources", source, "model")


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
