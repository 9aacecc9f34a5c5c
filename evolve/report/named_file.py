"""Files that a user names: written over nothing but an earlier one of its kind."""

from __future__ import annotations

from pathlib import Path

from evolve.problems import ConfigError
from merge_core.atomic_output import write_atomically

PAGE = b'<meta name="generator" content="evolve">'
PICTURE = b"Software\0evolve"
_HEAD = 4096  # bytes, among which a mark is


def write_named(file: Path, content: str | bytes, mark: bytes) -> None:
    """Write a file that begins with a mark of ours.

    Args:
        file: where; a link is followed.
        content: with `mark` near its beginning.
        mark: by which an earlier file is known to be made here.

    Raises:
        ConfigError: some other file is there.
    """
    if file.is_file():
        with file.open("rb") as stream:
            if mark not in stream.read(_HEAD):
                raise ConfigError(f"{file}: exists, and evolve did not write it. Name another file, or move it away")
    write_atomically(file.resolve() if file.is_symlink() else file, content)


def write_new(file: Path, content: str) -> Path:
    """Write a file where none was when the work on it began; beside one that has appeared since.

    Args:
        file: where.
        content: of it.

    Returns:
        Where it is: `file`, or its name with the next number that is free.
    """
    place, number = file, 1
    while True:
        try:
            write_atomically(place, content, replaces=False)
            return place
        except FileExistsError:
            number += 1
            place = file.with_stem(f"{file.stem}-{number}")
