"""Trials in a database, by Optuna's tables."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from evolve.trials.journal_lines import JournalError

DRIVERS = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""Module that a kind of database is spoken to by -> package, where its name is another."""

_MYSQL = ("mysql", "mariadb")
_SHOWN = 3  # tables


def open_database(url: str, file: Path | None) -> BaseStorage:
    """Open a database, making Optuna's tables where there are none.

    Args:
        url: SQLAlchemy's.
        file: which it is in, if it is in one.

    Raises:
        JournalError: it is another program's.
    """
    if file is not None:
        _refuse_anothers_tables(url, file)
    if _kind(url) in _MYSQL:
        _take_long_texts()
    return optuna.storages.get_storage(_by_a_driver(url))


def check_driver(url: str) -> None:
    """Import what a database is spoken to by; nothing is connected to.

    Args:
        url: SQLAlchemy's, or of a kind that Optuna reaches by other means.

    Raises:
        ImportError: it is not installed.
        SQLAlchemyError: there is no such kind of database.
    """
    from sqlalchemy import create_engine  # brings a tenth of a second, which a file does without

    if not _kind(url).startswith("redis"):
        create_engine(_by_a_driver(url))


def _kind(url: str) -> str:
    return url.partition("://")[0].partition("+")[0]


def _by_a_driver(url: str) -> str:
    """An address of MySQL with the driver that is installed, where it names none: SQLAlchemy knows one default."""
    scheme, separator, place = url.partition("://")
    if scheme in _MYSQL and find_spec("MySQLdb") is None:
        scheme += "+pymysql"
    return f"{scheme}{separator}{place}"


def _take_long_texts() -> None:
    """Have tables that are made from now on take texts of any length, as those of other databases do.

    MySQL's TEXT ends at 64 kB, and what is known of a trial with some thousand items is longer.
    """
    from sqlalchemy import Text
    from sqlalchemy.ext.compiler import compiles

    compiles(Text, *_MYSQL)(lambda *_, **__: "LONGTEXT")


def _refuse_anothers_tables(url: str, database: Path) -> None:
    """Optuna makes its tables in whatever SQLite database it is given; that is looked at before.

    Raises:
        JournalError: it holds tables, and none of Optuna's.
    """
    if not database.is_file():
        return
    tables: list[str] = []
    with (
        suppress(sqlite3.Error),  # no database at all, which is told by whoever opens it
        closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    if tables and "studies" not in tables:
        shown = ", ".join(tables[:_SHOWN])
        raise JournalError(f"{url}: is another program's database, with {shown}. Name a file of its own as storage")
