"""What a search.yml gets wrong is found before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from demo_search import demo_search


def test_a_check_names_the_driver_of_a_storage_that_is_not_installed(
    evolve: Callable[..., SimpleNamespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("pymysql", "MySQLdb"):
        monkeypatch.setitem(sys.modules, name, None)
    weight = {"low": 0.0, "high": 1.0}
    file = demo_search(tmp_path / "search.yml", weight, items=(20, 20), storage="mysql://nowhere/x")
    checked = evolve("check", file)
    assert checked.returncode == 2
    assert "storage: mysql://nowhere/x: cannot be opened: needs pymysql. pip install 'pymysql'" in checked.stderr
