"""A directory of its own for one local Ray, and the end of every process that belongs to it.

Ray leaves processes behind when it is killed, for minutes or for ever, and its directory always. What belongs to a
session is known by the directory's name: in the environment, or in what a process of Ray's has open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "EVOLVE_RAY_SESSION"  # in the environment of everything that a session starts
_PREFIX = "evolve-ray-"
_LOCK = ".in_use"
_TOKEN = "token"
_ROUNDS = 50  # of looking for processes that a dying one started meanwhile
_LONGEST_PATH = 36  # Ray's sockets lie 69 characters deeper, and a socket's path has at most 107


class RaySession:
    """Made when a pool starts, removed when it ends. A session whose makers were all killed goes when the next starts.

    Attributes:
        directory: for logs, sockets and the token; only this user can read it.
    """

    def __init__(self) -> None:
        root = _root()
        _end_abandoned(root)
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        self._lock = (self.directory / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.directory / _TOKEN).write_text(secrets.token_hex(32), encoding="utf-8")
        (self.directory / _TOKEN).chmod(0o600)

    @property
    def lock(self) -> int:
        """A file descriptor; the session is in use as long as a process holds it."""
        return self._lock.fileno()

    def environment(self, local: bool) -> dict[str, str]:
        """The environment for the process that imports `ray`, which must know it before.

        Args:
            local: whether it starts a Ray of its own, which listens on the loopback interface only, and wants a token.
        """
        found = dict(os.environ) | {MARK: str(self.directory), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        if local:
            for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_AUTH_TOKEN"):  # of another cluster
                found.pop(name, None)
            found |= {
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what Ray calls its way of binding 127.0.0.1 everywhere
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.directory / _TOKEN),
                "RAY_USAGE_STATS_ENABLED": "0",
            }
        return found

    def close(self) -> None:
        """End what is left of its processes, and remove the directory."""
        end_session(self.directory)
        self._lock.close()


def end_session(directory: Path) -> None:
    """Kill every process of a session but this one, and remove its directory."""
    for _ in range(_ROUNDS):
        found = list(processes_of(directory))
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not found:
            break
        psutil.wait_procs(found, timeout=0.2)  # nobody else's child is reaped by us, so a zombie counts as gone
    shutil.rmtree(directory, ignore_errors=True)


def processes_of(directory: Path) -> Iterator[psutil.Process]:
    """Every process of a session but this one and the one that began it."""
    for process in psutil.process_iter():
        if process.pid != os.getpid() and process.pid != os.getppid() and _belongs(process, str(directory)):
            yield process


def _belongs(process: psutil.Process, directory: str) -> bool:
    """By the environment; Ray's agents and workers write over theirs, and are known by what they have open."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(MARK) == directory:
            return True
        if not process.name().startswith("ray"):
            return False
        if any(directory in part for part in process.cmdline()):
            return True
        return any(file.path.startswith(f"{directory}/") for file in process.open_files())
    except psutil.Error:  # another user's, or gone
        return False


def _end_abandoned(root: Path) -> None:
    for directory in root.glob(f"{_PREFIX}*"):
        try:
            with (directory / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end_session(directory)
        except OSError:
            continue  # in use, being made this moment, or another user's


def _root() -> Path:
    root = Path(tempfile.gettempdir()).resolve()
    return root if len(str(root)) + len(_PREFIX) + 8 <= _LONGEST_PATH else Path("/tmp").resolve()
