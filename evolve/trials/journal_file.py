"""The file of a journal: appended to line by line, mended when it is opened, and watched while a run goes on.

A line is on disk before the next is written. One process writes (`evolve.trials.writer_lock`); any number may read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import weakref
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from evolve.trials.journal_lines import (
    CREATE_STUDY,
    CREATE_TRIAL,
    Fault,
    JournalError,
    LineReader,
    Place,
    operation_of,
    outline,
    sealed,
)

_BEGIN = b'{"op_code":'


class JournalFile(BaseJournalBackend):
    """A file of sealed lines, in Optuna's journal format.

    Args:
        path: the file. A link is followed, so that what it names stays one file.
        objectives: of a search whose first line is lost.

    Attributes:
        faults: what is wrong with the file, and is left out.
        saved: trials whose places are lost, with their results.
        kept: the damaged file as it was, if it was mended.

    Raises:
        JournalError: it is something else than a journal.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, objectives: int = 1) -> None:
        self.path = path.resolve()
        self._reader = LineReader(objectives)
        self._end = 0  # of the last whole line that was read or written
        self._checksum = 0  # up to there
        self._own: list[dict[str, Any]] = []  # written, and not handed out yet
        self._held_back: bytes | None = None  # lines that are written together
        self._reread = False
        self._identity: tuple[int, int] | None = None  # of the file that is written
        self._kept_open = -1  # a descriptor of it, by which it can be read when its name is gone
        self._process = os.getpid()
        self.kept: Path | None = None

    @property
    def faults(self) -> list[Fault]:
        """What is wrong with the file."""
        return self._reader.faults

    @property
    def length_and_checksum(self) -> tuple[int, int]:
        """Of what was read and written, in bytes, and its CRC-32."""
        return self._end, self._checksum

    @property
    def saved(self) -> list[dict[str, Any]]:
        """Trials whose places are lost, with their results as far as they are known."""
        return [found for found in self._reader.saved.values() if "result" in found and "trial" in found]

    def open_for_writing(self) -> None:
        """Make it whole, and be the one who writes. What was there is kept beside it, if it was damaged.

        Raises:
            JournalError: it is something else than a journal, which is left as it is.
        """
        if self.path.is_file():
            for _ in self._operations():
                pass  # read once for its faults, and once for what it says, so that it is never in memory as a whole
            self._check_journal()
        if self.faults:
            self._rewrite()
        self._kept_open = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        state = os.fstat(self._kept_open)
        if state.st_size > self._end:  # a kill tore the last line
            os.truncate(self._kept_open, self._end)
        self._identity = _identity(state)
        weakref.finalize(self, _close, self._kept_open, self._identity)
        self._reread = True

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Optuna's: the operations from a number on, which is always the next.

        In outline. Where the file is written, which may take days, the rest is left in it; who only reads looks at
        every trial at once, and has all at hand.
        """
        if self._identity is None:
            lines = self._operations() if self.path.is_file() else iter(())
            yield from (outline(operation, replace(place, operation=operation)) for place, operation in lines)
            self._check_journal()
            return
        if self._reread:
            self._reread, self._end, self._checksum, found = False, 0, 0, self._reader
            self._reader = LineReader(self._reader.objectives)
            yield from (outline(operation, place) for place, operation in self._operations())
            self._reader.faults, self._reader.saved = found.faults, found.saved
        written, self._own = self._own, []
        yield from written

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Optuna's: write operations down.

        Raises:
            JournalError: the file is not as this process left it.
            OSError: it cannot be written, as when the disk is full; it is as it was before.
        """
        if os.getpid() != self._process:
            raise JournalError(f"{self.path}: a copy of the run's process does not write its journal")
        before = replace(self._reader)
        lines, operations, end = b"", [], self._end + len(self._held_back or b"")
        for log in logs:
            operation = self._created(log)
            operations.append(outline(operation, Place(end + len(lines))))
            lines += sealed(operation, self._reader.next_number)
            self._reader.next_number += 1
        if self._held_back is None:
            try:
                self._append(lines)
            except BaseException:
                self._reader = before
                raise
        else:
            self._held_back += lines
        self._own += operations

    @contextlib.contextmanager
    def one_write(self) -> Iterator[None]:
        """Write down at the end, at once, what is appended meanwhile; nothing of it where that is broken off.

        Raises:
            JournalError, OSError: as `append_logs`.
        """
        before, self._held_back = replace(self._reader), b""
        try:
            yield
            self._append(self._held_back)
        except BaseException:
            self._reader = before
            raise
        finally:
            self._held_back = None

    def _created(self, log: dict[str, Any]) -> dict[str, Any]:
        """An operation with the number of what it creates, which Optuna only counts."""
        if log["op_code"] == CREATE_STUDY:
            self._reader.studies += 1
            return {**log, "creates": self._reader.studies - 1}
        if log["op_code"] == CREATE_TRIAL:
            self._reader.trials += 1
            return {**log, "creates": self._reader.trials - 1}
        return dict(log)

    def _append(self, lines: bytes) -> None:
        try:
            # Opened by name each time: a scorer may close whatever is open, and another file take its number.
            with self.path.open("rb+", buffering=0) as file:
                state = os.fstat(file.fileno())
                if _identity(state) != self._identity:
                    raise JournalError(f"{self.path}: {self._was_replaced()}")
                if state.st_size != self._end:
                    raise JournalError(
                        f"{self.path}: has {state.st_size} bytes, where this run left {self._end}: it was "
                        f"{'cut' if state.st_size < self._end else 'written to'} while the run went on. Run the same "
                        "command again: what is still there is used, and what is lost is scored again"
                    )
                file.seek(self._end)
                try:
                    _write_all(file, lines)
                    os.fsync(file.fileno())
                except OSError as error:
                    error.filename = str(self.path)
                    with contextlib.suppress(OSError):  # else the next run drops the torn line
                        file.truncate(self._end)
                    raise
        except FileNotFoundError:
            raise JournalError(f"{self.path}: {self._was_replaced()}") from None
        self._end += len(lines)
        self._checksum = zlib.crc32(lines, self._checksum)

    def _was_replaced(self) -> str:
        """What happened to the file, whose content is put back where its place is free."""
        fix = "Run the same command again: nothing that was finished is scored again"
        try:
            if _identity(os.fstat(self._kept_open)) != self._identity:
                raise OSError
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("xb") as file, open(self._kept_open, "rb", closefd=False) as gone:
                gone.seek(0)
                shutil.copyfileobj(gone, file)
        except FileExistsError:
            return "another file took its place while the run went on. Put the journal back, or choose another --output"
        except (OSError, ValueError):
            return "was deleted while the run went on. Choose another --output, or give back the file from a copy"
        return f"was deleted while the run went on, and is put back. {fix}"

    def operation_at(self, place: Place) -> dict[str, Any]:
        """What a line says in full.

        Raises:
            JournalError: the file is not as it was when the line was found.
        """
        if place.operation is not None:
            return place.operation
        try:
            with self.path.open("rb") as file:
                file.seek(place.offset)
                found = operation_of(file.readline())
        except FileNotFoundError:
            raise JournalError(f"{self.path}: {self._was_replaced()}") from None
        if found is None:
            raise JournalError(f"{self.path}: was changed while it was read. Run the same command again")
        return found

    def _operations(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """What whole lines say that were not read yet, and where."""
        with self.path.open("rb") as file:
            file.seek(self._end)
            for raw in file:
                if not raw.endswith(b"\n"):  # being written, or torn by a kill
                    return
                found, place = self._reader.read(raw), Place(self._end)
                self._end += len(raw)
                self._checksum = zlib.crc32(raw, self._checksum)
                yield from ((place, operation) for operation in found)

    def _check_journal(self) -> None:
        """Raise where it is some other file: most lines say nothing, and what stands after the last is no torn one."""
        reader = self._reader
        if reader.damaged_lines > reader.usable_lines or not (reader.usable_lines or self._begins_a_line()):
            raise JournalError(
                f"{self.path}: is no journal: of its lines {reader.damaged_lines} are something else. It is left as it "
                "is; name another file as storage"
            )

    def _begins_a_line(self) -> bool:
        """Whether nothing stands after the last whole line, or what a kill left of a first one."""
        if not self.path.is_file():
            return True
        with self.path.open("rb") as file:
            file.seek(self._end)
            tail = file.read(len(_BEGIN)).strip(b" \t\r\n\0")
        return _BEGIN.startswith(tail)

    def _rewrite(self) -> None:
        """Put a whole journal in the place of a damaged one, which is kept beside it."""
        from merge_core.atomic_output import new_file  # brings the merge engine, and who only reads does without

        names = (self.path.with_name(f"{self.path.name}.damaged-{number}") for number in itertools.count(1))
        self.kept = next(place for place in names if not os.path.lexists(place))
        shutil.copyfile(self.path, self.kept)
        found, self._end, self._reader = self._reader, 0, LineReader(self._reader.objectives)
        written = JournalFile(self.path)  # counts what it creates
        with new_file(self.path) as file:
            for number, (_, operation) in enumerate(self._operations()):
                file.write(sealed(written._created(operation), number))
            self._end = file.tell()
        self._reader.faults, self._reader.saved = found.faults, found.saved


def _close(descriptor: int, identity: tuple[int, int]) -> None:
    """Close a descriptor, unless somebody has, and it is another file's by now."""
    with contextlib.suppress(OSError):
        if _identity(os.fstat(descriptor)) == identity:
            os.close(descriptor)


def _write_all(file: Any, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino
