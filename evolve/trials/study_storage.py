"""Optuna's storage behind a journal: a file, or a database by its URL; and whatever it raises, as one kind of error."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.storages import BaseStorage, JournalStorage

from evolve.problems import error_lines
from evolve.trials.database_storage import DRIVERS, check_driver, open_database
from evolve.trials.journal_file import JournalFile
from evolve.trials.journal_lines import JournalError, study_name
from evolve.trials.writer_lock import file_of, without_password

optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_storage(location: str, file: JournalFile | None) -> BaseStorage:
    """The storage of a journal.

    Args:
        location: the file, or the URL of a database.
        file: which it is, if it is one.

    Raises:
        JournalError: it is another program's database.
    """
    if file is None:
        return open_database(location, file_of(location))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(file)


def check_storage(location: str) -> None:
    """Refuse a storage that cannot be opened on this machine, as far as is known without opening it.

    Raises:
        JournalError: the package for its kind of database is not installed, or there is no such kind.
    """
    if "://" in location:
        with readable(location):
            check_driver(location)


def study_ids(storage: BaseStorage) -> list[int]:
    """The ids of our studies, the latest last: a search that was begun anew has earlier ones."""
    ids = {study.study_name: study._study_id for study in storage.get_all_studies()}
    return [ids[name] for name in itertools.takewhile(ids.__contains__, map(study_name, itertools.count()))]


@contextmanager
def readable(location: str) -> Iterator[None]:
    """Whatever Optuna, its database and our decoders raise on records that they cannot read is one kind of error."""
    try:
        yield
    except JournalError:
        raise
    except _unreadable() as error:
        missing = _missing_driver(error)
        install = f"needs {missing}. pip install '{DRIVERS.get(missing, missing)}'"
        reason = install if missing else without_password(error_lines(error)[0])
        raise JournalError(f"storage: {without_password(location)}: cannot be opened: {reason}") from error


def _missing_driver(error: BaseException) -> str:
    """The module that a kind of database is spoken to by, where that is what is not installed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name
        cause = cause.__cause__ or cause.__context__
    return ""


def _unreadable() -> tuple[type[Exception], ...]:
    """What they raise. The library under databases is not imported for it: that takes long, and a file does without."""
    common = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, TypeError, ValueError)
    library = sys.modules.get("sqlalchemy.exc")
    return common if library is None else (*common, library.SQLAlchemyError)
