"""One process writes; the second is told who the first is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from evolve.problems import ConfigError
from evolve.trials.journal import Journal
from evolve.trials.writer_lock import file_of, storage_held, without_password


@pytest.mark.parametrize("location", ["{}/journal.log", "sqlite:///{}/trials.db", "postgresql://nobody@nowhere{}/db"])
def test_a_second_process_is_refused_and_told_who_holds_the_storage(location, tmp_path):
    location = location.format(tmp_path)
    code = f"from evolve.trials.writer_lock import storage_held\nwith storage_held({location!r}): pass"
    with storage_held(location):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"storage: {location}: in use by process {os.getpid()} (" in done.stderr
        assert "wait for it, or name another storage" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_link_to_a_storage_is_the_same_storage(tmp_path):
    (tmp_path / "journal.log").touch()
    (tmp_path / "link.log").symlink_to(tmp_path / "journal.log")
    with (
        storage_held(str(tmp_path / "journal.log")),
        pytest.raises(ConfigError, match="in use by process"),
        storage_held(str(tmp_path / "link.log")),
    ):
        pass


def test_a_lock_goes_with_its_process_however_it_ends(tmp_path):
    location = str(tmp_path / "journal.log")
    code = f"""
import os
from evolve.trials.writer_lock import storage_held
with storage_held({location!r}):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with storage_held(location):
        pass


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_no_run_wrote_is_no_lock_and_stays(kind, tmp_path):
    lock, precious = tmp_path / ".journal.log.evolve-lock", tmp_path / "precious"
    precious.write_text("mine")
    precious.rename(lock) if kind == "file" else lock.symlink_to(precious)
    refused = pytest.raises(ConfigError, match="evolve-lock: evolve did not write it")
    with refused, storage_held(str(tmp_path / "journal.log")):
        pass
    assert lock.read_text() == "mine"


def test_a_lock_that_a_full_disk_tore_is_written_anew(tmp_path):
    (tmp_path / ".journal.log.evolve-lock").write_text('{"pid')
    with storage_held(str(tmp_path / "journal.log")):
        pass


def test_a_database_that_refuses_what_is_written_ends_a_run_with_one_line(tmp_path):
    location = f"sqlite:///{tmp_path}/trials.db"
    said = r"trials\.db: cannot be written: .*readonly database.* is kept; fix that and run the same command again"
    journal = Journal.open(location, create=True)
    (tmp_path / "trials.db").unlink()
    with pytest.raises(ConfigError, match=said) as caught, storage_held(location):
        journal.note("seconds", 1)
    journal._storage._backend.engine.dispose()  # Optuna keeps its connections until the process ends
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_not_there_is_a_line(tmp_path):
    refused = pytest.raises(ConfigError, match="cannot be opened: No such file or directory")
    with refused, storage_held(str(tmp_path / "nowhere" / "journal.log")):
        pass


def test_the_files_of_storages_are_known():
    assert str(file_of("a/b.log")) == "a/b.log"
    assert str(file_of("sqlite:///a/b.db?timeout=3")) == "a/b.db"
    assert str(file_of("sqlite+pysqlite:////a/b.db")) == "/a/b.db"
    assert file_of("sqlite:///:memory:") is None
    assert file_of("mysql://a/b") is None


@pytest.mark.parametrize("password", ["secret", "se/cret", "se@cret", "se:cr@e/t?", "%73ecret"])
def test_no_part_of_a_password_is_shown(password):
    shown = without_password(f"postgresql+psycopg://me:{password}@host:5432/db?timeout=3")
    assert shown == "postgresql+psycopg://me:***@host:5432/db?timeout=3"
    query = without_password(f"mysql://me@host/db?passwd={password}&timeout=3&sslPassword={password}")
    assert query == "mysql://me@host/db?passwd=***&timeout=3&sslPassword=***"


def test_an_address_without_a_password_is_shown_as_it_is():
    for location in ("sqlite:////a@b/c:d.db?timeout=3", "postgresql://me@host:5432/db", "runs/a:b@c.log"):
        assert without_password(location) == location
