"""What every reader of recipe documents does: expect a form, note each mistake, go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from merge_core.bounds import ENTRIES
from merge_core.errors import MergeError, Place, Problem, did_you_mean, shown
from merge_core.recipe.model_reference import ModelReference

T = TypeVar("T")


@dataclass
class Notes:
    """What the readers of one document note.

    Attributes:
        problems: mistakes.
        ignored: what the document says and nothing reads.
        advice: key → what to do with one that means nothing where it stands.
    """

    problems: list[Problem] = field(default_factory=list)
    ignored: list[Problem] = field(default_factory=list)
    advice: dict[str, str] = field(default_factory=dict)


class PartReader:
    """Reads parts of a document; a mistake is noted and reading goes on.

    Args:
        notes: where it is noted.
    """

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def problem(self, place: Place, text: str) -> None:
        """Note a mistake."""
        self.notes.problems.append(Problem(place, text))

    def ignore(self, place: Place, text: str) -> None:
        """Note something that nothing reads."""
        self.notes.ignored.append(Problem(place, text))

    def fix(self, key: object, known: Iterable[str]) -> str:
        """What to do with a key that means nothing where it stands."""
        advice = self.notes.advice.get(str(key))
        return did_you_mean(key, known) if advice is None else f" {advice}."

    def mapping(self, value: object, place: Place, known: Sequence[str]) -> Mapping[str, Any] | None:
        """A map; its keys that are not ``known`` are noted as ignored."""
        if not isinstance(value, Mapping):
            self.problem(place, f"expected a map with keys among {', '.join(known)}, got {shown(value)}")
            return None
        for key in value:
            if key not in known:
                self.ignore(place, f'unknown key "{key}".{self.fix(key, known)}')
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
        if isinstance(value, Mapping):
            self.mapping(value, place, ("model", "lora", "override_architecture"))
            for part in ("model", "lora"):
                if isinstance(value.get(part), Mapping):
                    self.mapping(value[part], (*place, part), ("path", "revision"))
        try:
            return ModelReference.parse(value)
        except MergeError as error:
            self.notes.problems += [problem.within(*place) for problem in error.problems]
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
