"""What is found once about the sources of a search, kept in files that every worker of a machine maps."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from merge_core.atomic_output import new_file
from merge_core.ownership import mark_unfinished

Array = np.ndarray[Any, np.dtype[Any]]


class StatisticsCache:
    """A directory of arrays. It can be deleted at any time: what is missing is made again.

    Args:
        directory: made when the first array is kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def array(self, key: str, make: Callable[[], Array]) -> Array:
        """An array, mapped from its file, which is never written to; or made and kept.

        Args:
            key: everything that the array's content depends on.
            make: called when there is no file; its result is returned as it is where it cannot be kept.
        """
        file = self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        if (found := _mapped(file)) is not None:
            return found
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # a full disk only costs the time of making it again
                if not self._directory.is_dir():
                    self._directory.mkdir(parents=True, exist_ok=True)
                    mark_unfinished(self._directory)
                held.enter_context(_alone(file.with_suffix(".lock")))
            if (found := _mapped(file)) is not None:  # made by another process, while this one waited
                return found
            array = make()
            with contextlib.suppress(OSError):
                with new_file(file) as stream:  # another process may look at any moment
                    np.save(stream, array, allow_pickle=False)
                return array if (found := _mapped(file)) is None else found
        return array


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is here; what it makes meanwhile need not be made twice."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _mapped(file: Path) -> Array | None:
    try:
        array: Array = np.load(file, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or cut off
        return None
    return array
