"""Files that appear whole or not at all: a temporary name, fsync, then one rename."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A temporary sibling of ``path`` that becomes ``path`` when the block ends without an exception."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        try:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)  # temporary files are made so that only their owner can read them
            os.fsync(stream.fileno())
            os.replace(stream.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # interrupted right after it got its name
                os.unlink(stream.name)
            raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8; there is the old one or the new one, never half of it."""
    with new_file(path) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
