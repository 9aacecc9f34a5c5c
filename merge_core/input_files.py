"""The doors by which files of others come in: a bounded read, and readers that raise nothing but `MergeError`."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from merge_core.bounds import DEPTH, PIPE_SECONDS
from merge_core.errors import MergeError, first_line

FETCH = "Fetch or write the file again"

_pipes: dict[tuple[int, int], bytes] = {}


@contextmanager
def reading(what: Path | str, fix: str = FETCH) -> Iterator[None]:
    """Whatever a library raises on content that it cannot make sense of becomes a `MergeError` with its place.

    Args:
        what: the file or directory that is read, or the document and the place in it.
        fix: how to put it right.
    """
    try:
        yield
    except MergeError:
        raise
    except OSError as error:
        raise MergeError(f"{what}: cannot be read: {error.strerror or error}. {fix}") from error
    except RecursionError as error:
        raise MergeError(f"{what}: nested too deeply, more than {DEPTH} levels. {fix}") from error
    except MemoryError as error:
        raise MergeError(f"{what}: does not fit into memory. {fix}") from error
    except BaseException as error:
        # Libraries raise types of their own, such as `re.error`, and those in Rust one that is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        # What this package raises as a ValueError is a sentence; what Python raises by itself needs its type.
        kind = "" if type(error) is ValueError else f"makes no sense: {type(error).__name__}: "
        raise MergeError(f"{what}: {kind}{first_line(error)[:300]}. {fix}") from error


def read_file(path: Path, most_bytes: int, fix: str = FETCH) -> bytes:
    """The content of a regular file; nothing else is waited for, and no more is read than the bound.

    Raises:
        MergeError: no file, something else (a directory, a device, a pipe), or one that is too large.
    """
    with reading(path, fix), open(path, "rb", opener=_without_waiting) as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise MergeError(f"{path}: not a file. {fix}")
        content = stream.read(most_bytes + 1)
    return _bounded(path, content, most_bytes, fix)


def read_text(path: Path, most_bytes: int, fix: str = FETCH) -> str:
    """A UTF-8 text, from a file or from a pipe, as ``<(command)`` gives one.

    A pipe can be read once: what came out of it is kept for whoever reads it again.

    Raises:
        MergeError: as `read_file`; or a pipe into which nothing is written; or it is not UTF-8.
    """
    with reading(path, fix):
        status = os.stat(path)
        if stat.S_ISFIFO(status.st_mode):
            key = (status.st_dev, status.st_ino)
            if key not in _pipes:
                _pipes[key] = _read_pipe(path, most_bytes, fix)
            content = _pipes[key]
        else:
            content = read_file(path, most_bytes, fix)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text: {error.reason} at byte {error.start}"
        raise MergeError(f"{path}: cannot be read: {message}. {fix}") from error


def _without_waiting(path: str, flags: int) -> int:
    # A pipe would be waited for until somebody opens its other end.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _read_pipe(path: Path, most_bytes: int, fix: str) -> bytes:
    descriptor = _without_waiting(os.fspath(path), os.O_RDONLY)
    content = b""
    silent_since = time.monotonic()
    try:
        while len(content) <= most_bytes:
            try:
                part = os.read(descriptor, 1 << 20)
            except BlockingIOError:
                part = None  # it is open at its other end
            if part:
                content += part
                silent_since = time.monotonic()
            elif part == b"" and content:
                break
            elif time.monotonic() - silent_since > PIPE_SECONDS:
                raise MergeError(f"{path}: a pipe into which nothing is written. {fix}")
            else:
                time.sleep(0.01)
    finally:
        os.close(descriptor)
    return _bounded(path, content, most_bytes, fix)


def _bounded(path: Path, content: bytes, most_bytes: int, fix: str) -> bytes:
    if len(content) > most_bytes:
        raise MergeError(f"{path}: larger than {most_bytes / 1e6:g} MB, which none of its kind is. {fix}")
    return content
