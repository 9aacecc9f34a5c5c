"""Where workers of a machine share what they find out: in the run's directory, or where every machine has room."""

from __future__ import annotations

import os
import tempfile

import pytest

from evolve.evaluation.node_directory import NodeDirectory


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_what_a_machine_can_see_is_used_as_it_is(tmp_path):
    wanted = tmp_path / "run" / ".statistics_cache"
    wanted.parent.mkdir()
    assert NodeDirectory(wanted).path == wanted
    assert not wanted.exists()


def test_workers_of_a_machine_that_cannot_see_it_share_another(tmp_path):
    wanted = tmp_path / "elsewhere" / "run" / ".statistics_cache"
    one, two = NodeDirectory(wanted), NodeDirectory(wanted)
    assert one.path == two.path
    assert one.path.parent == tmp_path
    assert one.path.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "elsewhere").exists()


def test_one_that_nobody_holds_any_more_goes_when_the_next_is_made(tmp_path):
    held = NodeDirectory(tmp_path / "a" / "cache")
    left = NodeDirectory(tmp_path / "b" / "cache")
    os.close(left._lock)  # as a process that ends does
    NodeDirectory(tmp_path / "c" / "cache")
    assert held.path.is_dir()
    assert not left.path.exists()
