"""A simplification that is killed and started again: it ends as others do, and asks nothing twice."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from demo_search import EVERY_TENSOR, demo_search
from warm_program import run_program

DIES = """
import os, signal

from evolve.trials.journal import Journal

left = {after}
kept = Journal.{name}


def keep(*arguments):
    global left
    kept(*arguments)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)


Journal.{name} = keep
"""

ASKED = ("--allow", "0.5", "--numbers", "16")

pytestmark = pytest.mark.slow


def kill(run: Path, name: str, after: int) -> None:
    """Simplify until something has been kept so often."""
    first = DIES.format(name=name, after=after)
    ended = run_program("simplify", run, *ASKED, first=first)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def simplified(evolve: Any, run: Path) -> Any:
    shown = evolve("simplify", run, *ASKED, "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def test_a_killed_simplification_goes_on(evolve: Any, tmp_path: Path) -> None:
    more = {"start": {"steps": 3}, "budget": {"evaluations": 3}, "workers": {"count": 1, "cpus": 1}}
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
