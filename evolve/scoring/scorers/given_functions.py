"""Functions given as objects and not in a file: their names, what they depend on, and their way to workers."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import CellType, CodeType, ModuleType
from typing import Any

import cloudpickle

from evolve.scoring.content_keys import callables_within, code_keys, content_key, file_of, is_installed
from evolve.scoring.errors import TaskError, first_line

MODULE = "given"  # of their names in a configuration: `python: given:my_scorer`

Function = Callable[..., Any]
Packed = tuple[tuple[str, bytes], ...]

_FUNCTIONS: dict[str, Function] = {}
_STAYING: set[str] = set()  # names of those that no worker calls


@contextlib.contextmanager
def given(functions: Mapping[str, Function], staying: Collection[str] = ()) -> Iterator[None]:
    """Let configurations of this process name functions, each as `given:NAME`.

    Args:
        functions: name → function.
        staying: names of those that are called in this process alone, and need not travel to workers.
    """
    before, stayed = dict(_FUNCTIONS), set(_STAYING)
    _FUNCTIONS.update(functions)
    _STAYING.update(staying)
    try:
        yield
    finally:
        _FUNCTIONS.clear()
        _FUNCTIONS.update(before)
        _STAYING.clear()
        _STAYING.update(stayed)


def find_given(spec: str) -> Function | None:
    """The function that a configuration names; None where it names one of a module.

    Raises:
        TaskError: it was given to another process.
    """
    module, _, name = spec.partition(":")
    if module == MODULE and name not in _FUNCTIONS:
        raise TaskError(
            f"{name} was given to evolve in Python and is in no file. Go on there: evolve.search(..., directory=...)"
        )
    return _FUNCTIONS[name] if module == MODULE else None


class GivenFunctions:
    """The functions that are given now, as a part of what a worker in another process is told.

    They are pickled by value, with the modules beside them, and unpickled when a worker asks.
    """

    def __init__(self, packed: Packed | None = None) -> None:
        going = {name: function for name, function in _FUNCTIONS.items() if name not in _STAYING}
        self._functions = {} if packed is not None else going
        self._packed = packed

    def __eq__(self, other: object) -> bool:
        """Whether a worker is told the same."""
        if not isinstance(other, GivenFunctions):
            return NotImplemented
        return (self._functions, self._packed) == (other._functions, other._packed)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._functions or self._packed)

    def __hash__(self) -> int:
        return hash((tuple(self._functions), self._packed))

    def packed(self) -> GivenFunctions:
        """The same, ready to travel.

        Raises:
            TaskError: one of them cannot be pickled.
        """
        return self if self._packed is not None else GivenFunctions(tuple(map(_pack, self._functions.items())))

    def __reduce__(self) -> tuple[type[GivenFunctions], tuple[Packed | None]]:
        return GivenFunctions, (self.packed()._packed,)

    def provide(self) -> None:
        """Let configurations of this process name them.

        Raises:
            TaskError: one of them needs what this process does not have.
        """
        for name, data in self._packed or ():
            try:
                _FUNCTIONS[name] = cloudpickle.loads(data)
            except Exception as error:  # unpickling imports and runs what is not ours
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise TaskError(f"{name} cannot be loaded in a worker: {reason}") from error


def given_code_keys(function: Function) -> dict[str, str]:
    """What a given function's results depend on: name → hash.

    That is its code and the values around it; of a module's function the file, too, with the files that this needs; of
    one that was typed into a notebook, or stands in the script that runs, whose other lines do not matter, all that it
    names.
    """
    files: dict[str, str] = {}
    codes: list[str] = []
    for part in _parts(function):
        file, module = file_of(part), sys.modules.get(getattr(part, "__module__", None) or "")
        in_module = file is not None and module is not None and module.__name__ != "__main__"
        codes.append(_code_key(part, with_globals=not in_module))
        files |= code_keys(file) if file is not None and in_module else {}
    return {"code": content_key(codes), **files}


def _parts(function: Function) -> Iterator[Function]:
    """A function, or that of a partial one and the functions among its arguments."""
    if isinstance(function, functools.partial):
        for part in (function.func, *callables_within([*function.args, function.keywords])):
            yield from _parts(part)
    else:
        yield function


def _code_key(function: object, with_globals: bool, seen: frozenset[int] = frozenset()) -> str:
    """A hash of a function's code, of its defaults, and of the functions and values that it names."""
    function = inspect.unwrap(function) if callable(function) else function
    method = function if inspect.isfunction(function) else inspect.getattr_static(type(function), "__call__", None)
    if id(function) in seen or not inspect.isfunction(method):
        return content_key(function)
    seen = seen | {id(function)}
    cells = zip(method.__code__.co_freevars, method.__closure__ or (), strict=True)
    named = {name: cell.cell_contents for name, cell in cells if not _is_empty(cell)}
    if with_globals:
        named |= {name: method.__globals__[name] for name in _names(method.__code__) if name in method.__globals__}
    named |= vars(function) if method is not function else {}
    parts = [
        _code(method.__code__),
        content_key([method.__defaults__, method.__kwdefaults__]),
        *(f"{name}={_value_key(value, with_globals, seen)}" for name, value in sorted(named.items())),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _value_key(value: object, with_globals: bool, seen: frozenset[int]) -> str:
    if isinstance(value, ModuleType):
        return value.__name__
    return _code_key(value, with_globals, seen) if inspect.isfunction(value) else content_key(value)


def _code(code: CodeType) -> str:
    return "\n".join([code.co_code.hex(), *code.co_names, *map(_constant, code.co_consts)])


def _constant(value: object) -> str:
    """A constant of code; a set's elements have an order that differs from process to process."""
    if isinstance(value, CodeType):
        return _code(value)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def _names(code: CodeType) -> set[str]:
    """Everything that code names, and the functions and comprehensions inside it."""
    inside = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*map(_names, inside))


def _is_empty(cell: CellType) -> bool:
    """Whether a variable around a function has no value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _pack(named: tuple[str, Function]) -> tuple[str, bytes]:
    name, function = named
    with contextlib.ExitStack() as stack:
        for module in _modules_beside(function):
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        try:
            return name, cloudpickle.dumps(function)
        except Exception as error:  # what a function holds on to can raise anything
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise TaskError(
                f"{name} cannot be sent to workers in other processes: {reason}. Make what it holds on to inside of "
                "it, or search with workers=1"
            ) from error


def _modules_beside(function: Function) -> list[ModuleType]:
    """The loaded modules of the user's own directory, which a worker on another machine may not have."""
    homes = {file.parent for part in _parts(function) if (file := file_of(part)) and not is_installed(file)}
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and not is_installed(path := Path(file)) and path.parent in homes:
            found.append(module)
    return found
