"""Reads search.yml: every mistake in it at once, each with its line, what was found, and the fix."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evolve.config import ConfigError, MergekitSettings, SearchConfig, from_mergekit
from evolve.genes import ChoiceGene, RangeGene, find_genes, format_path, parse_gene, put, unshared_copy
from merge_core import MergeError, Recipe
from tasks import KINDS, TaskConfig, parse_task

Lines = dict[tuple[str | int, ...], int]


class SearchFile:
    """A search.yml as far as it could be read.

    Attributes:
        config: the whole configuration; None when anything is wrong with it.
        problems: one line per mistake.
        recipe: the `recipe` section, sound or not; its models can be looked for despite other mistakes.
        recipe_is_sound: whether nothing is wrong with the recipe by itself.
        tasks: those tasks that are sound by themselves, by their place in the list.
    """

    def __init__(self, path: Path, raw: Mapping[str, Any], lines: Lines) -> None:
        self.path = path
        self.raw = dict(raw)
        self.lines = lines
        self.config: SearchConfig | None = None
        self.problems: list[str] = []
        self.recipe: dict[str, Any] | None = None
        self.recipe_is_sound = False
        self.tasks: dict[int, TaskConfig] = {}
        self._validate()

    def place(self, location: Sequence[str | int], text: str) -> str:
        """`search.yml:12: tasks[1].weight: ...`."""
        where = format_path(tuple(location))
        return f"{self.path.name}{self._line_of(location)}: {where}: {text}" if where else f"{self.path.name}: {text}"

    def _line_of(self, location: Sequence[str | int]) -> str:
        for length in range(len(location), 0, -1):
            line = self.lines.get(tuple(location[:length]))
            if line is not None:
                return f":{line}"
        return ""

    def _validate(self) -> None:
        search = self.raw
        if "genome" in search and "recipe" not in search:
            try:
                search = from_mergekit(search)
            except ValidationError as error:
                self._add(error, MergekitSettings)
                search = from_mergekit({k: v for k, v in search.items() if k not in MergekitSettings.model_fields})
        try:
            self.config = SearchConfig.model_validate(search)
        except ValidationError as error:
            self._add(error, SearchConfig)
            if "recipe" not in search and "genome" not in search:
                self.problems.append(f"{self.path.name}: recipe: missing. A merge recipe with genes in it")
        if isinstance(search.get("recipe"), dict):
            self.recipe = search["recipe"]
            self.recipe_is_sound = self._check_recipe(search["recipe"])
        written = search.get("tasks")
        self.tasks = dict(_sound_tasks(written if isinstance(written, list) else ()))
        if self.problems:
            self.config = None

    def _check_recipe(self, template: dict[str, Any]) -> bool:
        """Genes one by one, then the recipe with every gene replaced by one of its values."""
        count = len(self.problems)
        filled: Any = unshared_copy(template)
        genes = list(find_genes(template))
        complained: set[int] = set()
        for path, node in genes:
            try:
                gene = parse_gene(node, path)
            except ValidationError as error:
                if id(node) not in complained:  # an anchor is one mistake, however often it is used
                    self._add(error, None, prefix=("recipe", *path))
                complained.add(id(node))
                put(filled, path, 0.5)  # the rest of the recipe is looked at all the same
            else:
                put(filled, path, gene.value(gene.unit(gene.init) if gene.init is not None else 0.5))  # type: ignore[arg-type]
        if not genes:
            self.problems.append(
                self.place(
                    ("recipe",),
                    "holds no gene, so there is nothing to search. Example: weight: {low: 0, high: 1}",
                )
            )
        if genes:
            try:
                Recipe.from_mapping(filled, where=f"{self.path.name}: recipe")
            except MergeError as error:
                self.problems += str(error).splitlines()
        return len(self.problems) == count

    def _add(self, error: ValidationError, model: type[BaseModel] | None, prefix: tuple[str | int, ...] = ()) -> None:
        details = error.errors(include_url=False)
        places = [detail["loc"] for detail in details]
        for detail in details:
            if any(
                len(place) > len(detail["loc"]) and place[: len(detail["loc"])] == detail["loc"] for place in places
            ):
                continue  # a list is short because its members are wrong, which is said already
            location = (*prefix, *_without_variants(detail["loc"], self.raw if not prefix else None))
            self.problems.append(self.place(location, _explain(detail, (*prefix, *detail["loc"]), model)))


def _sound_tasks(written: Sequence[Any]) -> Iterator[tuple[int, TaskConfig]]:
    for index, task in enumerate(written):
        with contextlib.suppress(ValidationError):  # said already, with the whole configuration
            yield index, parse_task(task)


def read_search(path: Path, overrides: Mapping[str, Any] | None = None) -> SearchFile:
    """Reads a search.yml and puts `--set` overrides in.

    Args:
        path: the file.
        overrides: dotted path ("budget.evaluations") -> value.

    Raises:
        ConfigError: the file cannot be read, or is not a YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}"]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError([f"{path.name}{line}: is not YAML: {getattr(error, 'problem', error)}"]) from None
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise ConfigError([f"{path.name}: expected a mapping with recipe and tasks, found {found}"])
    if overrides:
        _with_names(raw)
    for dotted, value in (overrides or {}).items():
        _override(raw, dotted, value)
    twice = [f"{path.name}:{line}: {format_path(place)}: given twice; keep one" for place, line in _repeated(node)]
    file = SearchFile(path, raw, dict(_lines(node)))
    if twice:
        file.problems = [*twice, *file.problems]
        file.config = None
    return file


def _repeated(node: yaml.Node | None, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Keys that a mapping holds twice, which YAML readers pass over in silence."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            if key.value in seen:
                yield (*path, key.value), key.start_mark.line + 1
            seen.add(key.value)
            yield from _repeated(child, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _repeated(child, (*path, index))


def _override(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = re.sub(r"\[(\d+)\]", r".\1", dotted).split(".")  # tasks[0].weight, as errors write places
    node: Any = raw
    for position, part in enumerate(parents):
        if isinstance(node, list):
            node = node[_index(node, part, dotted)]
            if not isinstance(node, dict | list):
                raise ConfigError([f"--set {dotted}: {part} is {node!r}, not a section"])
            continue
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict | list):
            place = ".".join(parents[: position + 1])
            raise ConfigError([f"--set {dotted}: {place} is {child!r}, not a section"])
        node = child
    if isinstance(node, list):
        node[_index(node, last, dotted)] = value
    else:
        node[last] = value


def _with_names(raw: dict[str, Any]) -> None:
    """A task written as its name alone becomes a section, so that its settings can be reached."""
    if isinstance(raw.get("tasks"), list):
        raw["tasks"] = [{"name": task} if isinstance(task, str) else task for task in raw["tasks"]]


def _index(items: list[Any], part: str, dotted: str) -> int:
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise ConfigError([f"--set {dotted}: {part!r} is not one of the places 0 to {len(items) - 1} of a list"])


def _lines(node: yaml.Node | None, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], int]]:
    if node is None:
        return
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _lines(child, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield (*path, index), child.start_mark.line + 1
            yield from _lines(child, (*path, index))


_TASK_CLASSES = frozenset(kind.__name__ for kind in KINDS.values())


def _without_variants(location: tuple[str | int, ...], raw: Any) -> tuple[str | int, ...]:
    """Drops the names of union members, which pydantic puts into a location."""
    kept: list[str | int] = []
    node = raw
    for part in location:
        if isinstance(node, Mapping) and part not in node and (part != location[-1] or part in _TASK_CLASSES):
            continue
        if isinstance(part, str) and " " in part:  # a form that a value can have, such as "file of items"
            continue
        kept.append(part)
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int):
            node = node[part] if part < len(node) else None
    return tuple(kept)


def _explain(detail: ErrorDetails, location: Sequence[str | int], model: type[BaseModel] | None) -> str:
    fields = _fields_at(model, location[:-1])
    key = str(location[-1]) if location else ""
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, fields, n=1)
        return "unknown key. " + (f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(fields))}")
    if detail["type"] == "missing":
        return f"missing. {fields.get(key, '')}".strip()
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] in ("value_error", "assertion_error"):
        return message
    found = detail["input"]
    shown = (
        f"a mapping with keys {', '.join(map(str, found))}"
        if isinstance(found, dict)
        else json.dumps(found, default=str)
    )
    return f"{_expected(detail)}, got {shown}. {fields.get(key, '')}".strip()


_EXPECTED = {
    "float_parsing": "expected a number, such as 0.5",
    "float_type": "expected a number, such as 0.5",
    "int_parsing": "expected a whole number, such as 100",
    "int_type": "expected a whole number, such as 100",
    "int_from_float": "expected a whole number, such as 100",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "string_type": "expected text",
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
    """What pydantic found wrong, in the words of the rest of this program."""
    known = _EXPECTED.get(detail["type"])
    if known is not None:
        return known.format(**detail.get("ctx", {}))
    message = detail["msg"]
    return (message[0].lower() + message[1:]).removeprefix("input ")


def _fields_at(model: type[BaseModel] | None, location: Sequence[str | int]) -> dict[str, str]:
    """Names and descriptions of the fields that may stand at a place of the file.

    Args:
        model: of the whole file; None for genes.
        location: pydantic's, in which a member of a union goes by the name of its class.
    """
    if model is None:
        both = {**ChoiceGene.model_fields, **RangeGene.model_fields}
        return {name: field.description or "" for name, field in both.items()}
    models = [model]
    for part in location:
        if isinstance(part, int):
            continue
        named = [variant for variant in models if variant.__name__ == part]
        inner = [field.annotation for variant in models if (field := variant.model_fields.get(part))]
        models = named or [found for annotation in inner for found in _models_in(annotation)]
    return {name: field.description or "" for found in models for name, field in found.model_fields.items()}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part)]
