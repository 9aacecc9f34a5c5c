"""A recipe file with all that is wrong with it: what is written, and models that are not there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from merge_core.bounds import RECIPE_BYTES
from merge_core.errors import MergeError, Problem
from merge_core.input_files import read_text
from merge_core.recipe.hub_headers import headers_only
from merge_core.recipe.model_reference import ModelReference, hub_ids, resolve_path
from merge_core.recipe.places import named_models
from merge_core.recipe.recipe import Recipe, load_recipes
from merge_core.yaml_text import FIX, parse_yaml

_TOLD = 20  # models that are not there, after which no more are looked for: each is asked for in the hub's cache, too


def load_checked(path: Path | str, relative_to: Path | None = None, known: Collection[str] = ()) -> tuple[Recipe, ...]:
    """As `load_recipes`; where that finds mistakes, models that are not there are told with them.

    Those of the hub (OWNER/NAME) are not asked for: a recipe with mistakes fetches nothing large.

    Args:
        path: of the file.
        relative_to: where local models are looked for first.
        known: models that are not looked for by their name.

    Raises:
        MergeError: with every mistake, and a line for each of the first such models.
    """
    try:
        return load_recipes(path)
    except MergeError as error:
        raise MergeError(*error.problems, *_absent_models(Path(path), relative_to, known)) from error


def _absent_models(path: Path, relative_to: Path | None, known: Collection[str]) -> Iterator[Problem]:
    try:
        written = parse_yaml(read_text(path, RECIPE_BYTES, FIX), path.name)
    except MergeError:  # told already
        return
    documents = [document for document in written if isinstance(document, Mapping)]
    elsewhere = {*(str(document.get("name")) for document in documents), *known}
    values = [mention.value for document in documents for mention in named_models(document)]
    told: dict[Problem, None] = {}
    with headers_only():
        for reference in _readable(values):
            if len(told) >= _TOLD:
                break
            on_hub = hub_ids(reference, relative_to)
            for part in (reference.model, reference.lora):
                if part is None or part.path in on_hub or {str(reference), str(part)} & elsewhere:
                    continue
                try:
                    resolve_path(part, relative_to)
                except MergeError as error:
                    told |= dict.fromkeys(error.problems)
    yield from told


def _readable(values: Iterable[object]) -> Iterator[ModelReference]:
    for value in values:
        with suppress(MergeError):  # told already, with its place
            yield ModelReference.parse(value)
