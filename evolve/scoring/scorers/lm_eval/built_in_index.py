"""lm-eval's index of its own ten thousand tasks, which takes 11 s of processor time to make: made once and kept."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

from evolve.scoring.user_cache import cache_directory

_FORMAT = 1


@functools.cache
def built_in_index() -> dict[str, Any]:
    """Name of a task, group or tag that is built into lm-eval → its `Entry`.

    An entry names the YAML file that lm-eval reads when it builds the task, and holds none of its content. Kept in the
    user's cache directory for each version and place of lm-eval; a damaged file, or one that names what is not there
    any more, is made anew.
    """
    import lm_eval.tasks

    package = Path(lm_eval.tasks.__file__).parent
    with contextlib.suppress(OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError):
        return _entries(json.loads(_file(package).read_text(encoding="utf-8")), package)
    if sys.stderr.isatty():
        print("indexing lm-eval's own tasks, once for this installation: some 15 s", file=sys.stderr)
    index: dict[str, Any] = {
        name: [entry.kind.name, _inside(entry.yaml_path, package), sorted(entry.tags)]
        for name, entry in lm_eval.tasks.TaskManager().task_index.items()
    }
    with contextlib.suppress(OSError, RuntimeError):  # a full disk, or no home, only costs the time of making it again
        file = _file(package)
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, json.dumps(index))
    return _entries(index, package)


def _file(package: Path) -> Path:
    version = importlib.metadata.version("lm_eval")
    key = json.dumps([_FORMAT, version, str(package), package.stat().st_mtime_ns])
    return cache_directory() / f"lm-eval-tasks-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _inside(path: Path | None, package: Path) -> str | None:
    return None if path is None else path.relative_to(package).as_posix()


def _entries(index: dict[str, Any], package: Path) -> dict[str, Any]:
    """The index as lm-eval has it.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is something else, or its first file is not there.
    """
    from lm_eval.tasks._index import Entry, Kind

    entries = {
        name: Entry(name, Kind[kind], None if path is None else package / path, None, set(tags))
        for name, (kind, path, tags) in index.items()
    }
    files = (entry.yaml_path for entry in entries.values() if entry.yaml_path is not None)
    first = next(files, None)
    if first is None or not first.is_file():
        raise ValueError(f"{first} is gone")
    return entries


def _write(file: Path, text: str) -> None:
    """Whole or not at all: another process may look at any moment."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
