"""`evolve run` with a scorer that does what ends a process or changes it: a failure of the candidate, or undone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from warm_program import run_program

ROOT = Path(__file__).resolve().parents[2]

# What candidate n does, from the first on; parents and the uniform merge behave.
SCORER = """
import locale, os, random, sys, threading
import torch

calls = 0


def misbehave(number):
    match number:
        case 0: sys.exit()
        case 1: sys.exit(3)
        case 2: raise KeyboardInterrupt
        case 3: raise GeneratorExit
        case 4: os.closerange(0, 100)
        case 5: os.fork()
        case 6: return misbehave(6)
        case 7: raise ValueError("x" * 500)
        case 8: threading.Thread(target=lambda: sys.exit(1)).start()
        case 9:
            os.chdir("/")
            os.environ.clear()
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(True)
            torch.manual_seed(1)
            random.seed(1)
        case 10:
            while True:
                try:
                    while True: pass
                except Exception: pass
        case 11: sys.stdout.close()
        case 12 | 13: raise ValueError("y" * 20_000_000)
        case 14 | 15: raise ValueError("\\ud800 is no character")


def score(model, items):
    global calls
    calls += 1
    if calls > PARENTS:
        misbehave(calls - PARENTS - 1)
    return [1.0] * len(items)
"""
PARENTS = 4


@pytest.mark.slow
def test_whatever_a_scorer_does_the_search_ends_with_its_files(tmp_path):
    (tmp_path / "odd.py").write_text(f"PARENTS = {PARENTS}\n{SCORER}")
    zoo = ROOT / "configs" / "demo_zoo"
    search = {
        "recipe": {
            "merge_method": "linear",
            "models": [
                {"model": str(zoo / name), "parameters": {"weight": {"low": 0.0, "high": 1.0}}}
                for name in ("sorting", "shift", "reversal")
            ],
        },
        "tasks": [{"python": "odd:score", "items": 4}],
        "start": "references",
        "optimizer": {"name": "random"},
        "budget": {"evaluations": 14},
        "workers": {"time_limit": 3},
        "items": {"search": 2, "held_out": 0},
    }
    (tmp_path / "search.yml").write_text(yaml.safe_dump(search))
    done = run_program("run", "search.yml", "--output", "out", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "candidate"]
    assert len(rows) == 14
    failures = [row["failure"] for row in rows if row["failure"]]
    # A scorer that raised is asked for an item alone, so that such a candidate does two of these things.
    expected = ["SystemExit()", "SystemExit(3)", "KeyboardInterrupt", "GeneratorExit", "xxx", "3 seconds"]
    expected += ["yyy", "is no character"]
    assert len(failures) == len(expected)
    for failure, reason in zip(failures, expected, strict=True):
        assert reason in failure
    assert max(map(len, failures)) < 2000
    assert (tmp_path / "out" / "best_recipe.yml").is_file()
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
