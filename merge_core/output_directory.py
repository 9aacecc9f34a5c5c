"""Model directories that appear whole or not at all, and replace only what was made here."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from merge_core.errors import MergeError
from merge_core.ownership import check_keeps, check_made, list_files, mark_unfinished, remove_made


@contextmanager
def new_directory(output: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling of ``output`` that becomes ``output`` when the block ends without an exception.

    What killed merges into the same output left behind is removed first.

    Raises:
        MergeError: as `check_vacant`; the disk is full or cannot be written.
    """
    output = Path(os.path.abspath(output))
    make_vacant(output, overwrite)
    temporary = temporary_directory(output, "partial")
    try:
        yield temporary
        list_files(temporary)
        # mkdtemp makes it private; a finished model is as readable as any other new directory.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        check_vacant(output, overwrite)  # again: this took long, and another process may have been at it
        move_into_place(temporary, output)
        _sync(output.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise MergeError(
                f"{output}: cannot be written: {error.strerror}. Free some space, or name an output on another disk"
            ) from error
        raise


def temporary_directory(output: Path, kind: str) -> Path:
    """A new directory beside ``output``, whose name says what it is and which process it belongs to.

    Raises:
        MergeError: the parent directory cannot be written.
    """
    try:
        directory = Path(tempfile.mkdtemp(prefix=f".{output.name}.{kind}-{os.getpid()}-", dir=output.parent))
        mark_unfinished(directory)
        return directory
    except OSError as error:
        raise MergeError(
            f"{output.parent}: cannot be written: {error.strerror}. Name an output that you may write"
        ) from error


def recover(output: Path) -> None:
    """Remove what killed merges into ``output`` left beside it, and put back a model that one had set aside."""
    for left in output.parent.glob(f".{glob.escape(output.name)}.*-*-*"):
        kind, process, *_ = left.name.removeprefix(f".{output.name}.").split("-")
        if kind not in ("partial", "old", "intermediates") or not process.isdigit() or _is_alive(int(process)):
            continue
        if kind == "old" and (left / output.name).is_dir() and not output.exists():
            os.rename(left / output.name, output)
        if any(left.iterdir()):
            remove_made(left)
        else:  # killed before it was marked
            left.rmdir()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def make_vacant(output: Path, overwrite: bool, needed: Mapping[str, Iterable[Path]] | None = None) -> None:
    """Make room for ``output``: what killed merges left is removed, the directory it is in is there.

    Args:
        output: directory that is going to be made.
        overwrite: whether it may be in the place of what was made here.
        needed: as for `check_keeps`: what must not be in that place, beside the working directory.

    Raises:
        MergeError: as `check_vacant` and `check_keeps`; the directory cannot be made.
    """
    if overwrite and needed is not None:
        check_keeps(output, {"the working directory": [Path.cwd()], **needed})
    recover(output)
    check_vacant(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MergeError(
            f"{output.parent}: cannot be made: {error.strerror}. Name an output that you may write"
        ) from error


def check_vacant(output: Path, overwrite: bool) -> None:
    """Refuse to write over anything, but for what was made here where ``overwrite`` allows that.

    Raises:
        MergeError: ``output`` is a file, a link, or a directory with something in it.
    """
    if output.is_dir() and not output.is_symlink():
        if not any(output.iterdir()):
            return
        if not overwrite:
            raise MergeError(f"{output}: exists and is not empty. Name another output, or set overwrite (--overwrite)")
        check_made(output)
    elif output.exists() or output.is_symlink():
        raise MergeError(f"{output}: exists and is not a directory. Name another output")


def move_into_place(temporary: Path, output: Path) -> None:
    """Give a finished directory its name, in the place of what was made there before.

    Raises:
        MergeError: ``output`` holds something that was not made here.
    """
    if output.is_dir() and any(output.iterdir()):
        check_made(output)  # again: merging takes long
        # There is no portable exchange of two directories; the old one is set aside, so that at no moment
        # a mixture of both could be taken for a model.
        old = temporary_directory(output, "old")
        os.rename(output, old / output.name)
        try:
            _rename(temporary, output)
        except (OSError, MergeError):
            if not output.exists():
                os.rename(old / output.name, output)
            raise
        finally:
            if output.exists():
                shutil.rmtree(old, ignore_errors=True)
    else:
        _rename(temporary, output)


def _rename(temporary: Path, output: Path) -> None:
    try:
        os.rename(temporary, output)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise MergeError(f"{output}: another process has just written it. Name another output") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
