"""`evolve run` that is killed at random moments: the short version of benchmarks/search/kills.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.faults
def test_a_search_that_is_killed_three_times_ends_as_one_that_is_not():
    script = ROOT / "benchmarks" / "search" / "kills.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", "--candidates", "24"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: rows, recipe, model, best" in done.stdout
