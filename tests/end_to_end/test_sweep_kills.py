"""`evolve sweep` that is ended by SIGKILL and started again: its table is that of one that nothing happened to."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from warm_program import Program

ZOO = Path(__file__).resolve().parents[2] / "configs" / "demo_zoo"
RECIPES = {"vary": {"recipe.merge_method": ["task_arithmetic", "ties"], "recipe.parameters.lambda": [1.0, -1.0]}}
SEARCHES = {
    "vary": {"seed": [0, 1], "recipe.merge_method": ["task_arithmetic", "ties"]},
    "variants": {
        f"away {seed}": {
            "seed": seed,
            **{f"recipe.models.{model}.parameters.weight": {"low": -1.0, "high": -0.9} for model in (0, 1)},
        }
        for seed in (0, 1)
    },
}


def written(path: Path, sweep: dict[str, Any], weight: object) -> Path:
    models = [{"model": str(ZOO / name), "parameters": {"weight": weight}} for name in ("sorting", "shift")]
    content = {
        "recipe": {
            "merge_method": "task_arithmetic",
            "base_model": str(ZOO / "base"),
            "models": models,
            "parameters": {"lambda": 1.0},
            "dtype": "bfloat16",
        },
        "tasks": ["demo_sorting", "demo_shift"],
        "items": {"search": 24, "held_out": 12},
        "budget": {"items": 960},
        "start": "references",
        "validation": {"finalists": 2},
        "workers": {"count": 1, "cpus": 1},
        "sweep": sweep,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def begun(path: Path, output: Path) -> Program:
    return Program("sweep", path, "--output", output, "--json")


def finished(path: Path, output: Path) -> list[dict[str, Any]]:
    """The rows of the table, without what depends on how long things took and where they are."""
    ended = begun(path, output).ended()
    assert ended.returncode == 0, ended.stderr
    rows: list[dict[str, Any]] = json.loads(ended.stdout)["variants"]
    return [{key: value for key, value in row.items() if key not in ("seconds", "directory")} for row in rows]


def results(output: Path) -> int:
    """How many are on disk."""
    journals = [journal.read_bytes().count(b'"result"') for journal in output.glob("*/journal.log")]
    kept = output / "sweep.jsonl"
    return sum(journals) + (kept.read_bytes().count(b"\n") if kept.is_file() else 0)


def killed(path: Path, output: Path, more: int) -> bool:
    """Kill it once it has written so many results more. Returns whether it still ran."""
    program, wanted = begun(path, output), results(output) + more
    program.wait_for(lambda: results(output) >= wanted)
    program.kill()
    return program.poll() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "weight", "moments"),
    [
        (RECIPES, 0.5, (2, 4)),
        pytest.param(SEARCHES, {"low": 0.0, "high": 1.0}, (9, 30), marks=pytest.mark.faults),  # a minute
    ],
)
def test_a_sweep_that_is_killed_ends_as_one_that_is_not(
    tmp_path: Path, sweep: dict[str, Any], weight: object, moments: tuple[int, ...]
) -> None:
    path = written(tmp_path / "sweep.yml", sweep, weight)
    whole = finished(path, tmp_path / "whole")
    assert any(row["beaten_early"] for row in whole)
    assert sum(killed(path, tmp_path / "killed", more) for more in moments) == len(moments)
    assert finished(path, tmp_path / "killed") == whole
