"""Storages that cannot be opened here are known before anything is."""

from __future__ import annotations

import sys

import pytest

from evolve.trials.journal_lines import JournalError
from evolve.trials.study_storage import check_storage


@pytest.mark.parametrize("location", ["runs/x/journal.log", "sqlite:///runs.db", "redis://localhost"])
def test_what_needs_no_driver_of_its_own_passes(location: str):
    check_storage(location)


@pytest.mark.parametrize(
    ("location", "missing"),
    [
        ("mysql://me:secret@nowhere/x", r"needs pymysql\. pip install 'pymysql'"),
        ("mysql+mysqldb://nowhere/x", r"needs MySQLdb\. pip install 'mysqlclient'"),
        ("postgresql+psycopg://nowhere/x", r"needs psycopg\. pip install 'psycopg\[binary\]'"),
        ("postgress://nowhere/x", "postgress"),
    ],
)
def test_a_database_without_its_driver_names_it(location: str, missing: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("pymysql", "MySQLdb", "psycopg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(JournalError, match=f"cannot be opened: .*{missing}") as error:
        check_storage(location)
    assert "secret" not in str(error.value)
