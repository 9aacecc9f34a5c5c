"""A simplification that is killed and started again: it ends as others do, and asks nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from demo_search import EVERY_TENSOR, demo_search

ROOT = Path(__file__).resolve().parents[2]
DIES = """
import os, runpy, signal, sys

from evolve.trials.journal import Journal

name, left = sys.argv[1], int(sys.argv[2])
kept = getattr(Journal, name)


def keep(*arguments):
    global left
    kept(*arguments)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)


setattr(Journal, name, keep)
sys.argv = ["evolve", *sys.argv[3:]]
runpy.run_module("evolve.commands.cli", run_name="__main__")
"""

pytestmark = pytest.mark.slow


def kill(run: Path, name: str, after: int) -> None:
    """Simplify until something has been kept so often."""
    ended = subprocess.run(
        [sys.executable, "-c", DIES, name, str(after), "simplify", str(run), "--allow", "0.5"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def simplified(evolve: Any, run: Path) -> Any:
    shown = evolve("simplify", run, "--allow", "0.5", "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def test_a_killed_simplification_goes_on(evolve: Any, tmp_path: Path) -> None:
    more = {"start": {"steps": 8}, "budget": {"evaluations": 3}, "workers": {"count": 1, "cpus": 1}}
    search = demo_search(tmp_path / "search.yml", EVERY_TENSOR, items=(16, 16), simplify="off", **more)
    run, whole = tmp_path / "run", tmp_path / "whole"
    ran = evolve("run", search, "--output", run)
    assert ran.returncode == 0, ran.stderr
    shutil.copytree(run, whole)
    kill(run, "keep_step", after=6)
    kill(run, "keep", after=1)
    found, expected = simplified(evolve, run), simplified(evolve, whole)
    assert {**found, "simple": None} == {**expected, "simple": None}
    assert (run / "simple" / "recipe.yml").read_text() == (whole / "simple" / "recipe.yml").read_text()
    for asked in ('"simplification_step:', '"simplification:'):
        assert (run / "journal.log").read_text().count(asked) == (whole / "journal.log").read_text().count(asked)
