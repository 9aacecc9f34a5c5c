"""YAML as data, within bounds: no alias or merge key makes more of a text than it could say itself, no tag runs code.

What is read is made of maps with text keys or numbers, lists, texts, numbers, booleans and null; a date is a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from merge_core.bounds import DEPTH, RECIPE_BYTES, YAML_VALUES
from merge_core.errors import MergeError, Problem
from merge_core.input_files import read_text

FIX = "Name a recipe file"

_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")
)


if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # libyaml's parser is ten times as quick, and not always there
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """Says of every value that cannot be read where it stands."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in _TAGS:
            raise _error(f"unknown tag {node.tag}", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind, text = node.tag.rpartition(":")[2], str(node.value)[:40]
            raise _error(f'"{text}" cannot be read as {kind}', node.start_mark) from error


# Without dates a day or a time is the text that it is written as: nothing in a recipe is a date.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> list[Any]:
    """The documents of a file, as `parse_yaml`; a pipe may be read again.

    Raises:
        MergeError: it cannot be read, is too large, or as `parse_yaml`.
    """
    return parse_yaml(read_text(path, RECIPE_BYTES, FIX), path.name)


def parse_yaml(text: str, where: str = "") -> list[Any]:
    """The documents of a text.

    Args:
        text: YAML.
        where: the file, for messages.

    Raises:
        MergeError: it is not YAML, is nested too deeply, holds too many values, or says one key twice.
    """
    return [document for _, document in parse_nodes(text, where)]


def parse_nodes(text: str, where: str = "", *, repeats: bool = False) -> list[tuple[yaml.Node, Any]]:
    """As `parse_yaml`, with the node of every document, which has the lines.

    Args:
        text: YAML.
        where: the file, for messages.
        repeats: leave keys that are given twice to the caller.
    """
    try:
        _check_events(text)
        # Construction writes merged keys into the nodes that it is given: it has its own.
        nodes = [node for node in yaml.compose_all(text, Loader=_SafeLoader) if node is not None]
        for node in nodes:
            _check_size(node)
            _check_texts(node)
            if not repeats and (repeated := next(repeated_keys(node), None)) is not None:
                raise _error(f'key "{repeated.value}" is given twice; keep one', repeated.start_mark)
        return list(zip(nodes, yaml.load_all(text, Loader=_Loader), strict=True))
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError) as error:
        mark = getattr(error, "problem_mark", None)
        document = f"{where}:{mark.line + 1}" if mark is not None and where else where
        reason = getattr(error, "problem", None) or (
            "nested too deeply" if isinstance(error, RecursionError) else error
        )
        raise MergeError(Problem((), f"not YAML: {' '.join(str(reason).split())}", document)) from error


def repeated_keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Keys that their mapping has had before, of which YAML readers take the last in silence."""
    for part in _nodes(node):
        if isinstance(part, yaml.MappingNode):
            seen: set[tuple[str, str]] = set()
            for key, _ in part.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen and not key.tag.endswith(":merge"):
                        yield key
                    seen.add((key.tag, key.value))


def _check_events(text: str) -> None:
    """Refuse what would make too much of memory and stack, before anything is made of it."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        values += isinstance(event, yaml.NodeEvent)
        if depth > DEPTH:
            raise _error(f"nested more than {DEPTH} levels deep", event.start_mark)
        if values > YAML_VALUES:
            raise _error(f"more than {YAML_VALUES} values", event.start_mark)


def _check_size(root: yaml.Node) -> None:
    """Refuse aliases that stand for too much, or for what they stand in themselves."""
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    open_: set[int] = set()

    def measure(node: yaml.Node) -> None:
        if id(node) in sizes:
            return
        if id(node) in open_:
            raise _error("an anchor stands in what it names", node.start_mark)
        open_.add(id(node))
        children = list(_children(node))
        for child in children:
            measure(child)
        open_.remove(id(node))
        sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
        depths[id(node)] = 1 + max((depths[id(child)] for child in children), default=0)
        if sizes[id(node)] > YAML_VALUES:
            raise _error(f"its aliases stand for more than {YAML_VALUES} values", node.start_mark)
        if depths[id(node)] > DEPTH:
            raise _error(f"its aliases nest more than {DEPTH} levels deep", node.start_mark)

    measure(root)


def _check_texts(root: yaml.Node) -> None:
    for node in _nodes(root):
        if isinstance(node, yaml.ScalarNode):
            try:
                node.value.encode()
            except UnicodeEncodeError:
                raise _error("half of a surrogate pair, which is no text", node.start_mark) from None


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Every node once, in the order of the text."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += reversed(list(_children(node)))


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark)
