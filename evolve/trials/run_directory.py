"""The output directory of one run: who may write there, what it was made from, and the files in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from evolve.problems import ConfigError
from evolve.trials.journal_lines import FILE_NAME
from evolve.trials.writer_lock import held

Inputs = Mapping[str, Iterable[Path]]
"""What an input of a search is, for a message → its files and directories."""

_NOTHING: Inputs = {}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_TROUBLES = (*_NO_ROOM, errno.EROFS, errno.EIO, errno.ESTALE)  # also a disk that fails, and a share that is gone


class RunDirectory:
    """Names the files, and makes sure that one process writes them, over nothing but what a run wrote.

    What `merge_core.ownership` knows is imported where a run writes: `evolve status` does without the merge engine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / FILE_NAME
        self.recipe = path / "best_recipe.yml"
        self.model = path / "model"
        self.card = path / "README.md"
        self.trials = path / "trials.csv"
        self.search = path / "search.yml"
        self.pareto = path / "pareto"  # a recipe for every member of the front of a Pareto search
        self.simple = path / "simple" / "recipe.yml"  # a shorter form of the best recipe
        self.items = path / "items.json"  # task -> ids of its search and held-out items
        self.summary = path / "run.json"
        self.report = path / "report.html"
        self.history = path / "history.png"  # the picture on the card
        self.statistics_cache = path / ".statistics_cache"  # shared by the workers, until the run is finished
        self.unproven_model = path / ".unproven-model"  # until it is known to be what was scored
        self.events = path / ".events.jsonl"  # for `evolve watch`, while the run goes on
        self._lock = path / ".lock"

    @property
    def _files(self) -> tuple[Path, ...]:
        texts = self.search, self.items, self.recipe, self.trials, self.card, self.summary, self.report
        return *texts, self.history

    @property
    def results(self) -> list[Path]:
        """Those of its files that are worth keeping elsewhere with it, as far as they are there."""
        kept = self.recipe, self.search, self.report, self.card, self.trials, self.summary
        return [file for file in kept if file.is_file()]

    @property
    def _directories(self) -> tuple[Path, ...]:
        return self.model, self.pareto, self.unproven_model, self.statistics_cache

    def check_usable(self, inputs: Inputs = _NOTHING) -> None:
        """Refuse a directory that a run may not write in: it holds no run, or something where a run's files go.

        Nothing is written.

        Args:
            inputs: what an input of the search is, for the message → where it is.

        Raises:
            ConfigError: with all that is in the way; or the directory cannot be written.
        """
        from merge_core.errors import MergeError, and_more
        from merge_core.ownership import check_keeps, check_made, is_within

        _check_writable(self.path)
        there = [entry for entry in self.path.iterdir() if entry != self._lock] if self.path.is_dir() else []
        if there and not self.holds_run():
            names = and_more(sorted(entry.name for entry in there))
            raise ConfigError(f"{self.path}: holds {names}, and no run. Name an --output that is new or empty")
        problems: list[str] = []
        # A search that goes on from the copy of its file leaves that as it is, changed or not.
        read = [self.search] if any(is_within(path, self.search) for paths in inputs.values() for path in paths) else []
        written = *self._files, self.simple
        for file in (*written, self.journal, self._lock):
            if file.is_symlink() or (file.exists() and not file.is_file()):
                problems.append(f"{file}: is a link or a directory, where a run writes a file. Move it away")
            elif file in written and file.exists() and not (file in read or RunDirectory(file.parent).wrote(file)):
                problems.append(f"{file}: evolve did not write it, or it was changed since. Move it away")
        shared = self.statistics_cache, self.simple.parent  # in which files of others stay as they are
        for directory in (*self._directories, self.simple.parent):
            if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
                problems.append(f"{directory}: is a link or a file, where a run writes a directory. Move it away")
            elif directory.is_dir() and directory not in shared and any(directory.iterdir()):
                with _collected(problems, MergeError):
                    check_made(directory)
        for path in (*written, *self._directories):
            if path not in read:
                with _collected(problems, MergeError):
                    check_keeps(path, inputs)
        if problems:
            raise ConfigError(*problems)

    @contextlib.contextmanager
    def locked(self, inputs: Inputs = _NOTHING) -> Iterator[None]:
        """Hold the directory for this process; the lock goes with the process, however it ends.

        Args:
            inputs: what an input of the search is, for the message → where it is.

        Raises:
            ConfigError: as `check_usable`; another run is using the directory; or it cannot be written later on: its
                disk is full, or it was deleted.
        """
        self.check_usable(inputs)
        with contextlib.ExitStack() as lock:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock.enter_context(held(self._lock, str(self.path), "wait for it, or choose another --output"))
            except OSError as error:
                raise ConfigError(f"{self.path}: cannot be used as output: {error.strerror}") from None
            try:
                self._claim()
                yield
            except OSError as error:
                if not self.path.is_dir():
                    raise ConfigError(f"{self.path}: was deleted while the run went on. Run it again") from error
                if error.errno not in _DISK_TROUBLES:
                    raise
                what = f"{error.filename or self.path}: cannot be written: {error.strerror}"
                fix = "free some space" if error.errno in _NO_ROOM else "fix that"
                again = f"{fix} and run it again, or choose another --output"
                raise ConfigError(f"{what}. What was recorded before is kept; {again}") from error

    def write(self, file: Path, content: str | bytes) -> None:
        """Write one of the directory's files, over none that a run did not write.

        Raises:
            ConfigError: it was changed since a run wrote it.
        """
        from merge_core.atomic_output import write_atomically
        from merge_core.ownership import content_key, is_made, write_list

        with self._listing() as made:
            keys = [content_key(content.encode("utf-8") if isinstance(content, str) else content)]
            if file.exists() or file.is_symlink():
                if not is_made(file, made.get(file.name, ())):
                    raise ConfigError(
                        f"{file}: was changed while the run went on, and is kept. Move it away and run the same "
                        "command again: nothing is scored twice"
                    )
                keys.insert(0, content_key(file))
            write_list(self.path, made | {file.name: keys})  # first, so that what a kill leaves is known
            write_atomically(file, content)

    def remove(self, file: Path) -> None:
        """Remove one of the directory's files, if it is as a run wrote it."""
        if self.wrote(file):
            file.unlink()

    def wrote(self, file: Path) -> bool:
        """Whether one of the directory's files is there, as a run wrote it."""
        from merge_core.ownership import is_made

        return file.is_file() and not file.is_symlink() and is_made(file, self._made().get(file.name, ()))

    def _made(self) -> dict[str, list[str]]:
        """Names of the files that runs wrote here → keys of their contents."""
        from merge_core.ownership import content_key, read_list

        made = read_list(self.path)
        if made is None:  # begun by a version that left no list
            return {file.name: [content_key(file)] for file in self._files if file.is_file() and not file.is_symlink()}
        return made

    def _claim(self) -> None:
        """Mark the directory as one that runs write in."""
        from merge_core.ownership import write_list

        with self._listing() as made:
            write_list(self.path, made)

    @contextlib.contextmanager
    def _listing(self) -> Iterator[dict[str, list[str]]]:
        """What is made, while nobody else renews the list: `evolve report` writes beside a run that goes on."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self._made()
        finally:
            os.close(descriptor)

    def holds_run(self) -> bool:
        """Whether a run was begun here: it left its mark, or, of an earlier version, its journal."""
        from merge_core.ownership import read_list

        return read_list(self.path) is not None or is_journal(self.journal)

    def in_use(self) -> bool:
        """Whether a process holds the directory at this moment."""
        try:
            with (self.path / ".lock").open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def goes_on(self) -> None:
        """Before a run scores more: what it left about itself at an earlier end is true of it no longer."""
        self.remove(self.summary)

    def read_summary(self, candidates: int) -> dict[str, Any]:
        """What the run left about itself; empty when it has not ended yet, or has gone on since.

        Args:
            candidates: how many are scored, or failed, by now: a run that goes on removes its summary, but an earlier
                version did not, and then it is of another number.
        """
        found = self._read_summary()
        return found if found.get("candidates") == candidates else {}

    def last_choice(self) -> int | None:
        """Number of the trial that the run chose when it last ended, whether or not it has gone on since."""
        number = self._read_summary().get("best")
        return number if isinstance(number, int) else None

    def _read_summary(self) -> dict[str, Any]:
        try:
            # A pipe, say, might be waited for without end.
            found = json.loads(self.summary.read_text(encoding="utf-8")) if self.summary.is_file() else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def is_journal(file: Path) -> bool:
    """Whether a file is a journal of Optuna's: no link, and its first line is one of its records."""
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as stream:
        try:
            first = json.loads(stream.readline(1 << 16))
        except ValueError:
            return False
    return isinstance(first, dict) and "op_code" in first


def _check_writable(path: Path) -> None:
    if "\0" in str(path):
        raise ConfigError(
            f"{path}: cannot be used as output: no name of a file holds a zero byte. Name another --output"
        )
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{path}: cannot be used as output: {nearest} is no directory. Name another --output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: cannot be used as output: {nearest} cannot be written. Name another --output")


@contextlib.contextmanager
def _collected(problems: list[str], kind: type[ValueError]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        problems.append(str(error))


def dump_recipe(recipe: Mapping[str, Any]) -> str:
    """A recipe as data as its file: its documents, one after the other."""
    if "merge_method" in recipe:  # it is one document: several are in a mapping that merges nothing itself
        return dump_yaml(dict(recipe))
    from merge_core.recipe.documents import written_documents

    return "---\n".join(dump_yaml(dict(document)) for document in written_documents(recipe))


def dump_yaml(data: Any) -> str:
    """YAML as people write it: keys in order, short lists on one line."""
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
