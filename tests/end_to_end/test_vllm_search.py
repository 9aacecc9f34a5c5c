"""`evolve run` with vLLM on the demo zoo, in the environment that `make test-vllm` makes; elsewhere skipped."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    *("items.search=20", "items.held_out=0", "budget.evaluations=3", "optimizer.population_size=3"),
    *("workers.cpus=1", "validation.finalists=0", "workers.count=1", "tasks=[{name: demo_sorting}]"),
    "simplify=off",
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make test-vllm"
)


def command(output, backend):
    sets = [text for setting in (*SETTINGS, f"backend={backend}") for text in ("--set", setting)]
    return [sys.executable, "-m", "evolve.commands.cli", "run", "configs/demo.yml", "--output", str(output), *sets]


def environment():
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def run(output, backend):
    done = subprocess.run(
        command(output, backend), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def staged():
    return set(Path("/dev/shm").glob("evolve-weights-*"))


def objectives(output):
    with (output / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["state"] == "complete" for row in rows)
    return {row["number"]: float(row["objective"]) for row in rows}


def test_a_search_on_vllm_scores_as_transformers_do_and_leaves_nothing(tmp_path):
    before = staged()
    done = run(tmp_path / "vllm", "{name: vllm}")
    run(tmp_path / "hf", "{name: hf}")
    found, expected = objectives(tmp_path / "vllm"), objectives(tmp_path / "hf")
    assert len(found) >= 3 + 5  # candidates and the parents
    # Candidates after the parents and their uniform merge are others: transformers has gradients. Answers differ where
    # two tokens are all but equally probable; one of twenty at most here.
    assert all(abs(found[str(number)] - expected[str(number)]) <= 0.05 + 1e-9 for number in range(6))
    assert len(set(found.values())) > 2
    assert "best_recipe.yml" in done.stdout
    recorded = [json.loads((tmp_path / name / "run.json").read_text())["fingerprint"] for name in ("vllm", "hf")]
    assert all(recorded)
    assert staged() == before


def test_a_search_that_is_killed_leaves_no_engine_running(tmp_path):
    process = subprocess.Popen(
        command(tmp_path / "killed", "{name: vllm}"),
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    journal = tmp_path / "killed" / "journal.log"
    deadline = time.monotonic() + 240
    family: set[psutil.Process] = set()
    while time.monotonic() < deadline and process.poll() is None:
        family |= set(psutil.Process(process.pid).children(recursive=True))
        if journal.exists() and b"complete" in journal.read_bytes():
            break
        time.sleep(0.2)
    assert process.poll() is None, "it ended before an engine was running"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
