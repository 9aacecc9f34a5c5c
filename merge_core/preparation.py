"""What is found once about the sources of a search, kept in files that every worker of a machine maps."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Preparation:
    """A directory of arrays. It can be deleted at any time: what is missing is made again.

    Args:
        directory: made when the first array is kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def array(self, key: str, make: Callable[[], Array]) -> Array:
        """An array, mapped read-only from its file, or made and kept.

        Args:
            key: everything that the array's content depends on.
            make: called when there is no file; its result is returned as it is where it cannot be kept.
        """
        file = self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        try:
            return _mapped(file)
        except (OSError, ValueError, EOFError):
            array = make()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._directory, suffix=".part", delete=False) as stream:
                try:
                    np.save(stream, array, allow_pickle=False)
                    # Whole or not at all: another process may look at any moment.
                    os.replace(stream.name, file)
                except BaseException:
                    os.unlink(stream.name)
                    raise
            return _mapped(file)
        except OSError:  # a full disk only costs the time of making it again
            return array


def _mapped(file: Path) -> Array:
    array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    return array
