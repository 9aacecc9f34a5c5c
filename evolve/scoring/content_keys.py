"""What a score depends on beside configuration and model, as hashes: data, and code with all that it imports."""

from __future__ import annotations

import ast
import copyreg
import hashlib
import inspect
import json
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# What these are is told by their versions.
_VERSIONED = frozenset({"evolve", "merge_core", "lm_eval"})
_INSTALLED = frozenset(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_LONGEST_NAME = 256  # of a file
_WRITES = re.compile(r"[rbt]*[wax+][rbt+]*")  # the mode of a file that is written


def content_key(content: object) -> str:
    """A hash of data: equal for equal data in every process.

    Args:
        content: anything. Of what is neither JSON nor bytes nor arrays, objects that are compared by their values
            count by what these are made of, such as patterns, paths and dataclasses. Others count by their type alone:
            their text may hold an address, and their state what they remember of their use.
    """
    text = json.dumps(_with_text_keys(content), default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def code_keys(file: Path, homes: Sequence[Path] = ()) -> dict[str, str]:
    """The hashes of a Python file and of everything beside it that it needs, directly or by way of another.

    That is what it imports, at its top or inside a function, and the files that its text names: word lists, prompts.
    What is installed elsewhere is not followed.

    Args:
        file: of the module.
        homes: where modules beside it are found, in order.

    Returns:
        The name of each file, as seen from its home -> sha256 of its bytes.
    """
    own_home, own_root = _home(file)
    if own_root in _VERSIONED:
        return {}
    places = tuple(dict.fromkeys(path.resolve() for path in (own_home, *homes)))
    found: dict[Path, str] = {}
    pending = [file.resolve()]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        try:
            content = path.read_bytes()
        except OSError:  # it was there a moment ago
            content = b""
        found[path] = hashlib.sha256(content).hexdigest()
        if path.suffix == ".py":
            pending += _needed(path, content, places, own_root)
    return {_shown(path, places): key for path, key in found.items()}


def file_of(function: object) -> Path | None:
    """The file that a function, class or instance was written in; None where there is none."""
    while isinstance(function, partial):
        function = function.func
    if not (inspect.isroutine(function) or inspect.isclass(function) or inspect.ismodule(function)):
        function = type(function)
    try:
        name = inspect.getsourcefile(inspect.unwrap(function)) if callable(function) else inspect.getfile(function)
    except (TypeError, OSError):  # built in, or made by something else than text
        return None
    return Path(name) if name and Path(name).is_file() else None


def is_installed(file: Path) -> bool:
    """Whether a file is a part of Python, of an installed package or of this project, and not the user's own."""
    path = file.resolve()
    return _home(path)[1] in _VERSIONED or any(path.is_relative_to(place) for place in _INSTALLED)


def callables_within(value: object) -> Iterator[Callable[..., Any]]:
    """The functions in lists and mappings of data."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from callables_within(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from callables_within(inner)
    elif callable(value):
        yield value


def _home(file: Path) -> tuple[Path, str]:
    """The directory that a file is imported from, and the first word of its module's name."""
    path = file.resolve()
    top = path.parent
    while (top / "__init__.py").is_file() and top.parent != top:
        top = top.parent
    return top, path.relative_to(top).parts[0].removesuffix(".py")


def _needed(path: Path, content: bytes, homes: Sequence[Path], own_root: str) -> Iterator[Path]:
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    written: set[ast.AST] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name, homes, own_root)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names)]
            for name in filter(None, names):
                if node.level:
                    yield from _files_of(path.parents[min(node.level, len(path.parents)) - 1], name.split("."))
                else:
                    yield from _modules(name, homes, own_root)
        elif isinstance(node, ast.Call):
            arguments = [value for value in (*node.args, *(one.value for one in node.keywords)) if _text(value)]
            if ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
                for argument in arguments:
                    yield from _modules(_text(argument).lstrip("."), (*homes, path.parent), own_root)
            elif any(_WRITES.fullmatch(_text(argument)) for argument in arguments):
                written.update(arguments)  # a log of its own, say
    for node in nodes:
        word = _text(node) if node not in written else ""
        if word and len(word) < _LONGEST_NAME and not {"\0", "\n"} & set(word):
            for place in dict.fromkeys((path.parent, *homes)):
                file = place / word
                if place not in _INSTALLED and file.is_relative_to(place) and _is_file(file):
                    yield file.resolve()


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _modules(name: str, homes: Sequence[Path], own_root: str) -> Iterator[Path]:
    parts = name.split(".")
    if not parts[0] or parts[0] in _VERSIONED:
        return
    for home in homes:
        if home in _INSTALLED and parts[0] != own_root:
            continue
        found = list(_files_of(home, parts))
        if found:
            yield from found
            return


def _files_of(directory: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The file of a module, and those of the packages that it is in."""
    place = directory
    for part in parts:
        place = place / part
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if _is_file(file):
                yield file.resolve()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _shown(path: Path, homes: Sequence[Path]) -> str:
    home = next((home for home in homes if path.is_relative_to(home)), None)
    return path.relative_to(home).as_posix() if home is not None else path.name


def _with_text_keys(value: object) -> object:
    """JSON has no keys but texts, and items may have any."""
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(inner) for inner in value]
    return value


def _plain(value: Any) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, set | frozenset):
        return sorted(map(content_key, value))
    if callable(getattr(value, "untyped_storage", None)):
        return [str(value.dtype), list(value.shape), _tensor_bytes(value)]
    if getattr(getattr(value, "dtype", None), "hasobject", False):  # an array whose bytes are addresses
        return _with_text_keys(value.tolist())
    if callable(getattr(value, "tobytes", None)):  # arrays and images
        shape = getattr(value, "shape", getattr(value, "size", None))
        return [type(value).__name__, str(getattr(value, "dtype", "")), str(shape), _plain(value.tobytes())]
    if callable(getattr(value, "to_dict", None)) and hasattr(value, "to_numpy"):  # a table
        return _with_text_keys(value.to_dict())
    if callable(getattr(value, "isoformat", None)):
        return str(value.isoformat())
    if inspect.isroutine(value) or inspect.isclass(value):
        return str(value.__qualname__)
    parts = _parts(value)
    return type(value).__name__ if parts is None else [type(value).__name__, _with_text_keys(parts)]


def _parts(value: object) -> object:
    """What an object would be made anew from; None where it is compared by its identity, or cannot be copied."""
    kind = type(value)
    if kind.__eq__ is object.__eq__ and kind.__hash__ is object.__hash__:
        return None
    reduce = copyreg.dispatch_table.get(kind)
    try:
        made = value.__reduce_ex__(2) if reduce is None else reduce(value)
    except Exception:  # the class may be anyone's
        return None
    return made if isinstance(made, str) else [list(one) if isinstance(one, Iterator) else one for one in made[1:]]


def _tensor_bytes(value: Any) -> object:
    import torch  # which is there, as this is one of its tensors

    try:
        return _plain(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    except (RuntimeError, NotImplementedError):  # without storage, or with a layout of its own
        return None
