"""Which files a piece of work reads, by an audit hook: what a bundle of a search must hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_listening: list[set[Path]] = []
_hooks: list[str] = []  # a hook stays as long as the process, so there is one at most


@contextmanager
def files_read() -> Iterator[set[Path]]:
    """Collect the files that are opened for reading in this process while the block runs, by absolute path.

    Python tells of every `open` (https://peps.python.org/pep-0578/); what is opened by a library in another language
    is not seen.
    """
    if not _hooks:
        sys.addaudithook(_heard)
        _hooks.append(_heard.__name__)
    found: set[Path] = set()
    _listening.append(found)
    try:
        yield found
    finally:
        _listening[:] = [other for other in _listening if other is not found]  # sets compare by content


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _listening:
        return
    path, mode, _ = arguments
    if isinstance(path, str) and not set("wax+") & set(mode or ""):
        for found in _listening:
            found.add(Path(path).absolute())
