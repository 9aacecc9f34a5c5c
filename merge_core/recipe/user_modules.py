"""Python modules of the user's that a recipe names: found beside it, imported, and copied to where the recipe goes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from merge_core.errors import MergeError, first_line


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a module that lies beside a recipe was found, and what its file said when it was imported."""

    directory: Path
    content: bytes


_ORIGINS: dict[str, _Origin] = {}


def import_module(name: str, directory: Path) -> ModuleType:
    """Import a module of the user's, once in the life of the process.

    Args:
        name: its full name.
        directory: of the file that names it; looked in first, then the working directory, then what is installed.

    Raises:
        MergeError: there is no such module, it cannot be imported, or another one of its name is loaded.
    """
    homes = dict.fromkeys((directory.resolve(), Path.cwd()))
    home = next((home for home in homes if _file(home, name) is not None), None)
    if home is None:
        return _import(name, homes)
    file = _file(home, name)
    content = file.read_bytes() if file is not None else b""
    root = name.partition(".")[0]
    origin = _ORIGINS.get(name)
    # A copy is as good: recipes of several runs bring copies of one module.
    if origin is not None and content != origin.content and home != origin.directory:
        raise MergeError(f"{name} in {home} differs from the one in {origin.directory}, which is loaded. Rename one")
    if origin is None and root in sys.modules and not _lies_in(sys.modules[root], home):
        raise MergeError(f"{name} in {home} has the name of a module that is loaded already. Rename it")
    # First while it is imported, so that it wins; last for what it imports later.
    sys.path.insert(0, str(home))
    try:
        module = _import(name, homes)
    finally:
        sys.path.remove(str(home))
        if str(home) not in sys.path:
            sys.path.append(str(home))
    _ORIGINS.setdefault(name, _Origin(home, content))
    return module


def content_key(module: ModuleType) -> str:
    """A hash of a module's text, as it was when it was imported."""
    origin = _ORIGINS.get(module.__name__)
    file = module.__file__
    content = origin.content if origin is not None else Path(file).read_bytes() if file else b""
    return hashlib.sha256(content).hexdigest()


def copy_module(name: str, directory: Path) -> None:
    """Copy a module that lay beside a recipe into another directory; one that is installed stays where it is.

    Raises:
        MergeError: another file of its name is there.
    """
    origin = _ORIGINS.get(name)
    if origin is None or origin.directory == directory.resolve():
        return
    root, _, inner = name.partition(".")
    if inner:  # part of a package, which needs the rest
        shutil.copytree(
            origin.directory / root,
            directory / root,
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=_copy_file,
            dirs_exist_ok=True,
        )
    else:
        _write_copy(directory / f"{name}.py", origin.content)


def _copy_file(source: str, target: str) -> None:
    _write_copy(Path(target), Path(source).read_bytes())


def _write_copy(target: Path, content: bytes) -> None:
    """A copy that is there already stays; any other file is somebody else's."""
    if not target.exists() and not target.is_symlink():
        target.write_bytes(content)
    elif not target.is_file() or target.read_bytes() != content:
        raise MergeError(f"{target}: is in the way of a copy of the module that the recipe names. Move it away")


def _import(name: str, homes: dict[Path, None]) -> ModuleType:
    try:
        with contextlib.chdir("."):  # a module may change the working directory
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            looked = ", ".join(map(str, homes))
            raise MergeError(f"no module {name!r}. Looked in {looked} and among the installed packages") from error
        raise MergeError(f"module {name!r} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:  # importing runs the user's code, which can raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise MergeError(f"module {name!r} cannot be imported: {reason}") from error


def _file(directory: Path, name: str) -> Path | None:
    module = directory.joinpath(*name.split("."))
    return next((file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()), None)


def _lies_in(module: ModuleType, directory: Path) -> bool:
    # A package without an __init__.py is no file, only places.
    files = [module.__file__] if module.__file__ is not None else list(getattr(module, "__path__", ()))
    return any(Path(file).resolve().is_relative_to(directory) for file in files if file)
