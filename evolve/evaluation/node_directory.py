"""A directory that the workers of one machine share, so that what they find out is found once for a machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "evolve-node-"
_LOCK = ".in_use"


class NodeDirectory:
    """The wanted directory where this machine sees what it lies in; else one of the same name for all in the
    temporary directory, which whoever comes next removes when no worker holds it any more.

    Args:
        wanted: as another machine calls it.

    Attributes:
        path: of the directory, which may not be there yet.
    """

    def __init__(self, wanted: Path) -> None:
        self.path = wanted
        if wanted.parent.is_dir():
            return
        root = Path(tempfile.gettempdir())
        name = f"{_PREFIX}{os.getuid()}-{hashlib.sha256(str(wanted).encode()).hexdigest()[:16]}"
        for other in root.glob(f"{_PREFIX}{os.getuid()}-*"):
            if other.name != name:
                _remove_abandoned(other)
        self.path = root / name
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self.path.is_symlink() or self.path.stat().st_uid != os.getuid():  # put there by somebody else
            self.path = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)  # until the process ends, however
        fcntl.flock(self._lock, fcntl.LOCK_SH)


def _remove_abandoned(directory: Path) -> None:
    try:
        with (directory / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:
        return  # in use, being made this moment, or another user's
