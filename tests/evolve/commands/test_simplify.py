"""`evolve simplify` after a small search of the demo's models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo_search import EVERY_TENSOR, demo_search

from evolve.simplify.long_recipe import count_numbers


def search(directory: Path) -> Path:
    more = {"start": {"steps": 16}, "budget": {"evaluations": 3}}
    return demo_search(directory / "search.yml", EVERY_TENSOR, items=(40, 40), **more)


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
