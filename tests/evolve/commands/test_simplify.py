"""`evolve simplify` after a small search of the demo's models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from evolve.simplify.long_recipe import count_numbers

ZOO = "configs/demo_zoo"


def search(directory: Path) -> Path:
    gene = {"weight": {"low": -0.5, "high": 1.5, "layers": "each", "filters": "each_tensor"}}
    models = [{"model": f"{ZOO}/{name}", "parameters": gene} for name in ("sorting", "shift")]
    content = {
        "recipe": {
            "merge_method": "task_arithmetic",
            "base_model": f"{ZOO}/base",
            "models": models,
            "dtype": "bfloat16",
        },
        "tasks": ["demo_sorting", "demo_shift"],
        "items": {"search": 40, "held_out": 40},
        "start": {"steps": 16},
        "budget": {"evaluations": 3},
    }
    path = directory / "search.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_recipe_of_many_numbers_becomes_one_of_few(evolve: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert evolve("run", search(tmp_path), "--output", run).returncode == 0
    shown = evolve("simplify", run, "--allow", "0.2", "--json")
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    recipe = yaml.safe_load(Path(facts["simple"]).read_text(encoding="utf-8"))
    assert count_numbers(recipe) == facts["numbers"] <= facts["long_numbers"] / 2
    assert facts["deciding"]["value"] >= -0.2
    assert facts["held_out"]["low"] <= facts["held_out"]["value"] <= facts["held_out"]["high"]
    again = evolve("simplify", run, "--allow", "0.2", "--json")
    assert json.loads(again.stdout) == facts
    none = evolve("simplify", run, "--numbers", "1")
    assert (none.returncode, "can be shared" in none.stderr) == (2, True)


def test_what_is_no_finished_run_is_refused(evolve: Any, tmp_path: Path) -> None:
    shown = evolve("simplify", tmp_path)
    assert (shown.returncode, "no finished run" in shown.stderr) == (2, True)
