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
def writing(path: Path) -> Iterator[None]:
    """Have what the system refuses name the file that it is about, as it does when one is opened."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def new_file(path: Path, *, replaces: bool = True) -> Iterator[IO[bytes]]:
    """A temporary sibling of ``path`` that becomes ``path`` when the block ends without an exception.

    Args:
        path: where.
        replaces: whether what is there gives way.

    Raises:
        FileExistsError: something is there, and does not give way.
    """
    prefix = f".{path.name}."
    with writing(path), tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=prefix, delete=False) as stream:
        try:
            yield stream.file  # without the wrapper, for which numpy copies what it writes
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)  # temporary files are made so that only their owner can read them
            os.fsync(stream.fileno())
            if not replaces:
                path.open("x").close()  # has the name, which a rename would take from anybody
            os.replace(stream.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # interrupted right after it got its name
                os.unlink(stream.name)
            raise


def write_atomically(path: Path, content: str | bytes, *, replaces: bool = True) -> None:
    """Write a file, text as UTF-8; there is the old one or the new one, never half of it.

    What is no file but a device or a pipe, such as ``/dev/stdout``, is written to and stays what it is.

    Args:
        path: where.
        content: of it.
        replaces: whether a file that is there gives way.

    Raises:
        FileExistsError: one is there, and does not give way.
    """
    is_stream = path.exists() and not path.is_file() and not path.is_dir()
    with writing(path), path.open("wb") if is_stream else new_file(path, replaces=replaces) as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
