"""Threads sleep where others want the cores, and look for work a little while where nobody does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from evolve.waiting_threads import SPIN_COUNT, choose_waiting


@pytest.mark.parametrize(
    ("load", "given", "expected"),
    [
        (0.1, {}, {"GOMP_SPINCOUNT": str(SPIN_COUNT)}),
        (3.0, {}, {"OMP_WAIT_POLICY": "passive"}),
        (3.0, {"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        (3.0, {"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_what_the_environment_leaves_open_is_chosen_by_the_load(
    load: float, given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    environment = dict(given)
    choose_waiting(environment)
    assert environment == expected


def test_a_machine_that_tells_no_load_counts_as_idle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "getloadavg")
    environment: dict[str, str] = {}
    choose_waiting(environment)
    assert environment == {"GOMP_SPINCOUNT": str(SPIN_COUNT)}


def test_the_program_chooses_before_anything_imports_torch():
    script = (
        "import sys, evolve.commands.cli as cli, evolve.waiting_threads as waiting\n"
        "seen = []\n"
        "cli.choose_waiting = lambda: seen.append('torch' in sys.modules)\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(seen)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[False]"
