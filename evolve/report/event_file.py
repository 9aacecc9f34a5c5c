"""The file in which a run leaves its events while it goes on, for whoever watches from another process.

It is a convenience: it is never read by a run, is small, and goes when the run ends.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from evolve.report.event_record import event_line
from evolve.trials.events import Event, RunStarted, Watcher

LARGEST = 4 << 20  # bytes, after which the file is begun anew


class EventFile:
    """A watcher that hands every event on, and appends it to a file; a context manager, which removes that at its end.

    Whatever is wrong with the disk costs the file alone.

    Args:
        path: the file; what an earlier process left there is replaced.
        watch: is told everything first.
    """

    def __init__(self, path: Path, watch: Watcher) -> None:
        self._path, self._watch = path, watch
        self._own: tuple[int, int] | None = None  # which file is written; None where none can be
        self._written = 0  # bytes
        self._started: RunStarted | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file; a reader that has it open still reads it to its end."""
        self._give_up()

    def __call__(self, event: Event) -> None:
        """Tell, and write down."""
        self._watch(event)
        if isinstance(event, RunStarted):
            self._started = event
        if self._own is None:
            return
        try:
            if self._written > LARGEST:
                self._begin()
                if self._started is not None:  # for who begins to watch now
                    self._append(self._started)
            self._append(event)
        except OSError:
            self._give_up()

    def _begin(self) -> None:
        """Put a new file in the place of the old one, of which a reader still sees the end."""
        from merge_core.atomic_output import new_file  # brings torch, and `evolve watch` reads without

        with new_file(self._path):
            pass
        self._own, self._written = _identity(self._path.stat()), 0

    def _append(self, event: Event) -> None:
        line = f"{event_line(event)}\n".encode()
        # Opened by name each time: a scorer may close whatever is open, and another file take its number.
        with open(self._path, "ab", buffering=0, opener=_open_existing) as file:
            if not self._is_own(os.fstat(file.fileno())):
                raise OSError(f"{self._path}: another file took its place")
            # One call for a line, so that it is whole also where a signal has another event told meanwhile.
            if file.write(line) != len(line):
                raise OSError(f"{self._path}: a line was cut")
        self._written += len(line)

    def _is_own(self, state: os.stat_result) -> bool:
        return _identity(state) == self._own and state.st_size >= self._written

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):
            if self._own is not None and self._is_own(self._path.stat()):
                self._path.unlink()
        self._own = None


class EventReader:
    """Reads such a file while it grows, and the one that takes its place; a context manager.

    Args:
        path: the file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""  # of a line that is being written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def news(self) -> Iterator[dict[str, Any]]:
        """The records of all whole lines since the last look."""
        yield from self._lines()
        if self._is_new():
            yield from self._lines()  # what was written since, before the other took its place
            if self._file is not None:
                self._file.close()
            self._file, self._rest = None, b""
            with contextlib.suppress(OSError):
                self._file = self._path.open("rb")
            yield from self._lines()

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self._file is None:
            return
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and "event" in record:
                    yield record

    def _is_new(self) -> bool:
        """Whether there is a file, and another than the one that is open."""
        with contextlib.suppress(OSError):
            if not self._path.is_file():  # a pipe, say, might be waited for without end
                return False
            return self._file is None or _identity(self._path.stat()) != _identity(os.fstat(self._file.fileno()))
        return False


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino
