"""Finding the Python functions that a configuration names as `package.module:function`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evolve.scoring.content_keys import code_keys
from evolve.scoring.errors import TaskError, did_you_mean, first_line
from evolve.scoring.foreign_code import without_escape
from evolve.scoring.process_state import process_restored
from evolve.scoring.scorers.given_functions import find_given, given_code_keys
from evolve.scoring.scorers.user_files import SearchPaths

# A function's full name, as pydantic checks it.
FUNCTION_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def load_function(spec: str, paths: SearchPaths) -> Callable[..., Any]:
    """Import a function of the user's, or take the one that was given.

    Args:
        spec: `package.module:function`, or `given:NAME`.
        paths: Where the module may be; otherwise it must be installed.

    Raises:
        TaskError: There is no such module or function, or the module cannot be imported.
    """
    if (found := find_given(spec)) is not None:
        return found
    module_name, _, name = spec.partition(":")
    module = _import(module_name, paths)
    function = getattr(module, name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise TaskError(f"module {module_name!r} has no function {name!r}.{did_you_mean(name, known)}")
    if not callable(function):
        raise TaskError(f"{spec} is {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def code_of(spec: str, paths: SearchPaths) -> dict[str, str]:
    """The files that a loaded function needs, its whole module and what that needs beside it: name -> hash.

    Args:
        spec: `package.module:function`.
        paths: Where modules beside it may be.
    """
    if (given := find_given(spec)) is not None:
        return given_code_keys(given)
    file: str | None = getattr(sys.modules[spec.partition(":")[0]], "__file__", None)
    return code_keys(Path(file), paths.directories()) if file is not None and Path(file).is_file() else {}


def check_call(
    function: Callable[..., Any], spec: str, positional: int, arguments: Mapping[str, Any], expected: str
) -> None:
    """Refuse a function that cannot be called as it will be.

    Args:
        function: The function.
        spec: Its name in errors.
        positional: How many arguments it is given by position.
        arguments: Those given by name.
        expected: Its head, for the error: `score(model, items)`.

    Raises:
        TaskError: Its signature does not fit.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function written in C may not say; calling it will
        return
    try:
        signature.bind(*(None for _ in range(positional)), **arguments)
    except TypeError as error:
        name = spec.partition(":")[2] or spec
        raise TaskError(
            f"{name}{signature} cannot be called as {expected}: {error}. Change its parameters or `arguments`."
        ) from error


def _import(name: str, paths: SearchPaths) -> Any:
    root = name.partition(".")[0]
    home = next((path for path in paths.directories() if _holds(path, name)), None)
    if home is not None:
        loaded = sys.modules.get(root)
        if loaded is not None and not _lies_in(loaded, home):
            raise TaskError(f"{root!r} in {home} has the name of a module that is loaded already. Rename it.")
        # First while it is imported, so that it wins; last for what it imports later.
        sys.path.insert(0, str(home))
    try:
        with without_escape(), process_restored(of_imports=False):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            looked = ", ".join(map(str, paths.directories()))
            raise TaskError(f"no module {name!r}. Looked in {looked} and among the installed packages.") from error
        raise TaskError(f"module {name!r} cannot be imported: {error}") from error
    except Exception as error:  # importing runs the user's code, which can raise anything
        raise TaskError(f"module {name!r} cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    finally:
        if home is not None:
            sys.path.remove(str(home))
            if str(home) not in sys.path:
                sys.path.append(str(home))


def _holds(directory: Path, name: str) -> bool:
    module = directory.joinpath(*name.split("."))
    return module.with_suffix(".py").is_file() or (module / "__init__.py").is_file()


def _lies_in(module: Any, directory: Path) -> bool:
    file: str | None = getattr(module, "__file__", None)
    # A package without an __init__.py is no file, only places.
    files = [file] if file is not None else list(getattr(module, "__path__", ()))
    return any(Path(name).resolve().is_relative_to(directory) for name in files)
