"""What every reader of recipe documents does: expect a form, note each mistake, go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from merge_core.bounds import ENTRIES
from merge_core.errors import MergeError, Place, Problem, did_you_mean, shown
from merge_core.recipe.model_reference import ModelReference

T = TypeVar("T")


class PartReader:
    """Reads parts of a document; a mistake is noted and reading goes on.

    Args:
        problems: where mistakes are noted.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def problem(self, place: Place, text: str) -> None:
        """Note a mistake."""
        self.problems.append(Problem(place, text))

    def mapping(self, value: object, place: Place, known: Sequence[str]) -> Mapping[str, Any] | None:
        """A map that has no keys but ``known``."""
        if not isinstance(value, Mapping):
            self.problem(place, f"expected a map with keys among {', '.join(known)}, got {shown(value)}")
            return None
        for key in value:
            if key not in known:
                self.problem(place, f'unknown key "{key}".{did_you_mean(key, known)}')
        return value

    def entries(self, value: object, place: Place, read: Callable[[object, Place], T | None]) -> tuple[T, ...] | None:
        """A list, if given not an empty one, whose entries ``read`` reads."""
        if value is None:
            return None
        if not isinstance(value, list) or not value:
            self.problem(place, f"expected a list with at least one entry, got {shown(value)}")
            return None
        if len(value) > ENTRIES:
            self.problem(place, f"a list of {len(value)} entries, at most {ENTRIES} are taken")
            return None
        results = [read(item, (*place, index)) for index, item in enumerate(value)]
        return tuple(result for result in results if result is not None)

    def reference(self, value: object, place: Place) -> ModelReference | None:
        """A model, where one is named."""
        if value is None:
            return None
        try:
            return ModelReference.parse(value)
        except MergeError as error:
            self.problems += [problem.within(*place) for problem in error.problems]
            return None

    def text(self, value: object, place: Place) -> str | None:
        """A text, where one is given."""
        if value is None or isinstance(value, str):
            return value
        self.problem(place, f"expected a text, got {shown(value)}")
        return None

    def required_model(self, mapping: Mapping[str, Any], place: Place) -> ModelReference | None:
        """The ``model`` of a map."""
        if mapping.get("model") is None:
            self.problem(place, "missing key model. Example: model: org/name")
        return self.reference(mapping.get("model"), (*place, "model"))
