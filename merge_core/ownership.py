"""What may be deleted or written over: what was made here, known by a list that is left with it, and no input.

Every directory that is made here holds `MARKER`: a list of the files that were put there, with a key of each one's
content. A file that is not on the list, or that was changed since, is somebody else's. Whatever replaces something asks
here first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from merge_core.atomic_output import write_atomically
from merge_core.errors import MergeError, and_more
from merge_core.json_files import read_json

MARKER = ".made_by_evolve"

# Of a large file samples are looked at, so near to one another that hardly a matrix of a model is between two.
_SAMPLE_BYTES = 4096
_SAMPLES = (16, 2048)  # at least and at most
_DISTANCE = 4 << 20  # bytes


def content_key(content: Path | bytes, samples: int | None = None) -> str:
    """A key of a file's size and content.

    Args:
        content: a file, or its bytes.
        samples: how many of a large file it is made of; by default as many as one of its size takes. The key says it,
            where they are not the least: those of earlier versions were.
    """
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    least, most = _SAMPLES
    samples = max(least, min(samples or size // _DISTANCE, most))  # a list may say anything
    offsets = _offsets(size, samples)
    digest = hashlib.sha256(str(size).encode())
    for part in _sampled_bytes(content, offsets) if isinstance(content, bytes) else _sampled_file(content, offsets):
        digest.update(part)
    return f"{'' if samples == least else f'{samples}-'}{digest.hexdigest()[:32]}"


def mark_unfinished(directory: Path) -> None:
    """Mark a new directory as one whose whole content is made here, until `list_files` says what that is."""
    (directory / MARKER).write_text("{}\n", encoding="utf-8")


def list_files(directory: Path) -> None:
    """Leave the list of all files that are in a directory now."""
    write_list(directory, {name: [content_key(directory / name)] for name in _files(directory)})


def write_list(directory: Path, keys: Mapping[str, list[str]]) -> None:
    """Leave a list: name of a file → keys of the contents that it may have, more than one while it is written."""
    write_atomically(directory / MARKER, json.dumps({"files": dict(keys)}, indent=1) + "\n")


def read_list(directory: Path) -> dict[str, list[str]] | None:
    """What `write_list` left; None for a directory that was not made here, or not finished."""
    try:
        found = read_json(directory / MARKER)["files"]
        return {str(name): [str(key) for key in keys] for name, keys in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def foreign_files(directory: Path) -> list[str]:
    """The files in a directory that were not made here, or were changed since; all of them where there is no list."""
    made = read_list(directory) or {}
    return [name for name in _files(directory) if not is_made(directory / name, made.get(name, ()))]


def is_made(file: Path, keys: Iterable[str]) -> bool:
    """Whether a file has one of the contents that were written here. A link is never ours: we write none."""
    if not file.is_file() or file.is_symlink():
        return False
    return any(content_key(file, _samples_of(key)) == key for key in keys)


def check_made(directory: Path) -> None:
    """Refuse to replace a directory that holds anything that was not made here.

    Raises:
        MergeError: it does; with what it is.
    """
    others = foreign_files(directory)
    if others and read_list(directory) is None:
        raise MergeError(
            f"{directory}: evolve did not make it, and replaces only what it made. Move it away, or name another output"
        )
    if others:
        raise MergeError(
            f"{directory}: would be replaced, and holds what evolve did not write or what was changed since: "
            f"{and_more(others)}. Move that away, or name another output"
        )


def remove_made(directory: Path) -> None:
    """Remove a directory that was made here, finished or not; anyone else's stays. The marker goes last."""
    if directory.is_symlink() or not (directory / MARKER).is_file():
        return
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != MARKER:
            entry.unlink(missing_ok=True)
    (directory / MARKER).unlink(missing_ok=True)
    directory.rmdir()


def check_keeps(output: Path, needed: Mapping[str, Iterable[Path]]) -> None:
    """Refuse to replace what an input lies in, or the file that is one, whatever either is called.

    Args:
        output: a file or directory that is to be replaced.
        needed: what an input is, for the message → its files and directories. A directory stands for what the links
            in it lead to, too.

    Raises:
        MergeError: with the first of them.
    """
    if not output.exists():
        return
    for what, paths in needed.items():
        for path in paths:
            inside = [path, *(entry for entry in path.iterdir() if entry.is_symlink())] if path.is_dir() else [path]
            if any(is_within(each, output) for each in inside):
                raise MergeError(f"{output}: {what} would be deleted with it. Name another output")


def is_within(path: Path, directory: Path) -> bool:
    """Whether a path leads into a directory, or is the same file: by what is on the disk, not by how it is written."""
    try:
        wanted = os.stat(directory)
    except OSError:
        return False
    real = path.resolve()
    for ancestor in (real, *real.parents):
        try:
            if os.path.samestat(os.stat(ancestor), wanted):
                return True
        except OSError:
            continue
    return False


def _files(directory: Path) -> Iterator[str]:
    """Everything in a directory that can be lost, by its name from there: files, links, empty directories."""
    for root, folders, files in os.walk(directory):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        if not folders and not files and here != directory:
            yield here.relative_to(directory).as_posix()
        for name in sorted([*files, *links]):
            relative = (here / name).relative_to(directory).as_posix()
            if relative != MARKER:
                yield relative


def _samples_of(key: str) -> int:
    samples, dash, _ = key.partition("-")
    return int(samples) if dash and samples.isdecimal() and len(samples) < 5 else _SAMPLES[0]


def _offsets(size: int, samples: int) -> Iterator[int]:
    if size <= samples * _SAMPLE_BYTES:
        yield from range(0, size, _SAMPLE_BYTES)
    else:
        yield from ((size - _SAMPLE_BYTES) * number // (samples - 1) for number in range(samples))


def _sampled_bytes(content: bytes, offsets: Iterable[int]) -> Iterator[bytes]:
    for offset in offsets:
        yield content[offset : offset + _SAMPLE_BYTES]


def _sampled_file(file: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    with file.open("rb") as stream:
        for offset in offsets:
            stream.seek(offset)
            yield stream.read(_SAMPLE_BYTES)
