"""A judge's answers on disk, so that none is asked for twice: not by another process, not by the next search."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.scoring.errors import Problem, TaskError, UnavailableError
from evolve.scoring.user_cache import cache_directory

_WAIT_SECONDS = 60.0


def default_path() -> Path:
    """The file that all searches of a user share.

    Raises:
        TaskError: The user has no home.
    """
    try:
        return cache_directory() / "judge-answers.sqlite"
    except RuntimeError as error:
        raise TaskError(Problem(("cache",), f"{error} Set `cache` to a file, or XDG_CACHE_HOME.")) from None


def request_key(url: str, body: Mapping[str, Any]) -> str:
    """The hash of a request: endpoint, model, prompt and sampling settings. The key is no part of it."""
    return hashlib.sha256(json.dumps([url, body], sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """Answers by the hash of their request. Any number of processes and threads may use one file.

    Args:
        path: The SQLite file; made, with its directory, when it is not there.

    Raises:
        TaskError: It cannot be opened, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._connected() as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT NOT NULL)"
                )
        except (OSError, sqlite3.Error) as error:
            message = f"{path} cannot be used: {error}. Set `cache` to another file."
            raise TaskError(Problem(("cache",), message)) from error

    def get(self, key: str) -> str | None:
        """The answer to a request, None if it was never given.

        Raises:
            UnavailableError: The file cannot be used any more.
        """
        with self._while_searching() as connection:
            row = connection.execute("SELECT answer FROM answers WHERE request = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, answer: str, instead_of: str | None = None) -> str:
        """Keep an answer and return the one that is kept, which is another process's if that was first.

        Args:
            key: Of the request.
            answer: To it.
            instead_of: An earlier answer that is of no use and may be replaced.

        Raises:
            UnavailableError: The file cannot be used any more.
        """
        with self._while_searching() as connection:
            connection.execute(
                "INSERT INTO answers VALUES (?, ?) ON CONFLICT (request) DO UPDATE SET answer = excluded.answer "
                "WHERE answer IS ?",
                (key, answer, instead_of),
            )
            row = connection.execute("SELECT answer FROM answers WHERE request = ?", (key,)).fetchone()
        return str(row[0])

    @contextlib.contextmanager
    def _connected(self) -> Any:
        # A connection each time: they must not be carried across a fork, and opening one costs less than a request.
        with (
            self._lock,
            contextlib.closing(sqlite3.connect(self._path, timeout=_WAIT_SECONDS)) as connection,
            connection,
        ):
            yield connection

    @contextlib.contextmanager
    def _while_searching(self) -> Any:
        try:
            with self._connected() as connection:
                yield connection
        except sqlite3.Error as error:  # a full disk, a file that was replaced
            raise UnavailableError(f"judge: cache {self._path} cannot be used: {error}") from error
