"""Who may write: one process at a time holds a file, and another one is told who that is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
import socket
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from evolve.problems import ConfigError, error_lines

_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_BEGIN = b'{"pid": '


@contextlib.contextmanager
def held(lock: Path, what: str, fix: str) -> Iterator[None]:
    """Hold a file for this process; the lock goes with the process, however it ends.

    Args:
        lock: the file, made if it is not there. It stays.
        what: is held by it, for the message.
        fix: what the other may do.

    Raises:
        ConfigError: another process holds it, with which one that is; or it is some other file, or a link to one.
        OSError: the file cannot be made.
    """
    _check_ours(lock)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise ConfigError(f"{what}: in use by {_holder(lock)}; {fix}") from None
            print(
                f"warning: {what}: cannot be locked here ({error.strerror}): run no other search on it", file=sys.stderr
            )
        file.truncate(0)
        file.write(json.dumps(_this_process()))
        file.flush()
        from evolve.scoring.process_state import kept_open  # readers of a run do without scorers

        with kept_open(file.fileno()):
            yield


@contextlib.contextmanager
def storage_held(location: str) -> Iterator[None]:
    """Hold the place where the trials of a run are, before anything is written there.

    Args:
        location: a journal file or an Optuna storage URL. A database that is no file is held on this machine alone.

    Raises:
        ConfigError: another run uses it, or its directory cannot be written; or a database refuses what is written
            later on: its disk is full, it is held by another program, or its server is gone.
    """
    name = f"storage: {without_password(location)}"
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(held(_lock_of(location), name, "wait for it, or name another storage"))
        except OSError as error:
            raise ConfigError(f"{name}: cannot be opened: {error.strerror}") from None
        try:
            yield
        except _database_errors() as error:
            reason = without_password(error_lines(error.__cause__ or error)[0])
            problem = f"{name}: cannot be written: {reason}. What was recorded before is kept; "
            raise ConfigError(problem + "fix that and run the same command again") from error


def _check_ours(lock: Path) -> None:
    """Refuse what would be written over and no run wrote."""
    if os.path.lexists(lock) and (lock.is_symlink() or not lock.is_file() or not _begins_a_lock(lock)):
        raise ConfigError(f"{lock}: evolve did not write it, and keeps a lock in a file of this name. Move it away")


def _begins_a_lock(file: Path) -> bool:
    with file.open("rb") as stream:
        return _BEGIN.startswith(stream.read(len(_BEGIN)))  # also a torn one, or none at all


def _database_errors() -> tuple[type[Exception], ...]:
    """What is raised of a database. Neither library is imported for it: a run without one does without them."""
    names = {"optuna.exceptions": "StorageInternalError", "sqlalchemy.exc": "SQLAlchemyError"}
    return tuple(getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules)


def file_of(location: str) -> Path | None:
    """The file that a storage is in; None for a database that is none.

    Args:
        location: a path or a URL.
    """
    if "://" not in location:
        return Path(location)
    scheme, _, path = location.partition(":///")
    is_file = scheme.partition("+")[0] == "sqlite" and path and not path.startswith((":memory:", "?"))
    return Path(path.partition("?")[0]) if is_file else None


def without_password(location: str) -> str:
    """A storage's address, or a message with one in it, as it may be shown.

    A raw `/` or `@` ends a password early for readers of addresses, SQLAlchemy's too: all up to the last `@` is hidden.

    >>> without_password("postgresql://me:secret@host/evolve")
    'postgresql://me:***@host/evolve'
    """
    shown = re.sub(r"(://[^:/@\s]*):.*@", r"\1:***@", location)
    return re.sub(r"([?&][^=&\s]*(?:passw|pwd)[^=&\s]*=)[^&\s]*", r"\1***", shown, flags=re.IGNORECASE)


def _lock_of(location: str) -> Path:
    file = file_of(location)
    if file is None:
        key = hashlib.sha256(location.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"evolve-{os.getuid()}-{key}.lock"
    path = file.resolve()  # a link to it is the same file
    return path.with_name(f".{path.name}.evolve-lock")


def _this_process() -> dict[str, str | int]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": shlex.join(sys.argv), "since": since}


def _holder(lock: Path) -> str:
    try:
        found = json.loads(lock.read_text(encoding="utf-8"))
        where = "" if found["host"] == socket.gethostname() else f" on {found['host']}"
        return f"process {found['pid']}{where} ({found['command'][:200]}), since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
