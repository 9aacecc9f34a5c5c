"""A YAML file as data, with the line of every place in it, and with settings put in from a command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evolve.problems import ConfigError, HasProblems, Place, Problem, placed, problems_within
from merge_core.bounds import RECIPE_BYTES
from merge_core.input_files import read_text
from merge_core.yaml_text import parse_nodes


@dataclass(frozen=True)
class YamlDocument:
    """A file that holds a mapping.

    Attributes:
        name: of the file, for messages.
        content: the mapping.
        lines: place -> line, from 1.
        problems: keys that are given twice, which YAML readers pass over in silence.
    """

    name: str
    content: dict[str, Any]
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...]

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Problems of what is checked later, with their file and line.

        Raises:
            ConfigError: in the place of any error that holds problems.
        """
        try:
            yield
        except ValueError as error:
            if not isinstance(error, HasProblems):
                raise
            raise ConfigError(*map(self.located, problems_within(error))) from error

    def located(self, problem: Problem) -> Problem:
        """The problem with file and line; one of another file is left as it is."""
        if problem.document:
            return problem
        for length in range(len(problem.place), 0, -1):
            line = self.lines.get(problem.place[:length])
            if line is not None:
                return dataclasses.replace(problem, document=f"{self.name}:{line}")
        return dataclasses.replace(problem, document=self.name)


def read_document(path: Path, overrides: Mapping[str, Any]) -> YamlDocument:
    """Read a file of one mapping.

    Args:
        path: the file.
        overrides: values put in: where, as `budget.evaluations`, `tasks.0.weight`, or `tasks[0].weight`, as errors
            write places -> what.

    Raises:
        ConfigError: the file cannot be read, or is not a YAML mapping; or an override has no place in it.
    """
    with placed():
        documents = parse_nodes(read_text(path, RECIPE_BYTES, "Name a search.yml"), path.name, repeats=True)
    if len(documents) > 1:
        message = "expected one document, found a second. Remove it"
        raise ConfigError(Problem((), message, f"{path.name}:{documents[1][0].start_mark.line + 1}"))
    node, content = documents[0] if documents else (None, None)
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(Problem((), f"expected a mapping with recipe and tasks, found {found}", path.name))
    lines: dict[Place, int] = {}
    problems = []
    for place, line, repeated in _lines(node):
        if repeated:
            problems.append(Problem(place, "given twice; keep one", f"{path.name}:{line}"))
        lines[place] = line
    for dotted, value in overrides.items():
        _override(content, dotted, value)
    return YamlDocument(path.name, content, lines, tuple(problems))


def _lines(node: yaml.Node | None, place: Place = ()) -> Iterator[tuple[Place, int, bool]]:
    """Every place with its line, and whether its mapping has had that key before; in the order of the file."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            yield (*place, key.value), key.start_mark.line + 1, key.value in seen
            seen.add(key.value)
            yield from _lines(child, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield (*place, index), child.start_mark.line + 1, False
            yield from _lines(child, (*place, index))


def _override(content: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = re.sub(r"\[(\d+)\]", r".\1", dotted).split(".")
    node: Any = content
    for position, part in enumerate(parents):
        if isinstance(node, list):
            index = _index(node, part, dotted)
            if parents[0] == "tasks" and isinstance(node[index], str):
                node[index] = {"name": node[index]}  # a task written as its name alone, whose settings are reached so
            node = node[index]
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            place = ".".join(parents[: position + 1])
            key = ".".join([*parents[position + 1 :], last])
            message = f"{place} is {node!r}, not a section. Set it as one: --set '{place}={{{key}: {value}, ...}}'"
            raise ConfigError(Problem((), message, f"--set {dotted}"))
    if isinstance(node, list):
        node[_index(node, last, dotted)] = value
    else:
        node[last] = value


def _index(items: list[Any], part: str, dotted: str) -> int:
    if part.isdigit() and int(part) < len(items):
        return int(part)
    message = f"{part!r} is not one of the places 0 to {len(items) - 1} of a list"
    raise ConfigError(Problem((), message, f"--set {dotted}"))
