"""`evolve simplify` after a small search of the demo's models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo_search import EVERY_TENSOR, demo_search

from evolve.simplify.long_recipe import count_numbers

ROOT = Path(__file__).resolve().parents[3]


def search(directory: Path) -> Path:
    more = {"start": {"steps": 8}, "budget": {"evaluations": 3}, "simplify": {"allow": "20%"}}
    return demo_search(directory / "search.yml", EVERY_TENSOR, items=(30, 30), **more)


@pytest.mark.slow
def test_a_recipe_of_many_numbers_becomes_one_of_few(
    evolve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    done = evolve("run", search(tmp_path), "--output", run)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "run.json").read_text(encoding="utf-8"))
    simple, spent = summary["simple"], summary["item_evaluations"]["shorter recipes"]
    foreseen = json.loads(evolve("check", tmp_path / "search.yml", "--json").stdout)["item_evaluations_at_most"]
    moved = 3 * 16 * 24 * 2 * 3  # lengths, steps, items, tasks, forward and backward: foreseen, and not needed here
    assert spent <= foreseen["shorter recipes"] <= 3 * spent + moved
    assert f"Short recipe: {simple['numbers']} numbers" in " ".join(done.stdout.split())
    assert "## A shorter recipe" in (run / "README.md").read_text(encoding="utf-8")
    assert "shorter recipes" in done.stdout  # what was spent on them

    shown = evolve("simplify", run, "--allow", "20%", "--json")
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    recipe = yaml.safe_load(Path(facts["simple"]).read_text(encoding="utf-8"))
    assert count_numbers(recipe) == facts["numbers"] <= facts["long_numbers"] / 2
    assert facts["deciding"]["value"] >= -0.2
    assert facts["held_out"]["low"] <= facts["held_out"]["value"] <= facts["held_out"]["high"]
    report = run / "report.html"
    report.unlink()
    again = evolve("simplify", run, "--allow", "0.2", "--json")
    assert json.loads(again.stdout) == facts
    assert f"{facts['numbers']} numbers in {facts['lines']} lines" in report.read_text(encoding="utf-8")
    nothing = evolve("simplify", run, "--allow", "0.001", "--numbers", "2")
    assert (nothing.returncode, "No short recipe" in nothing.stdout) == (0, True)

    monkeypatch.chdir(tmp_path)  # where no model is: the recipe says where they are from its own place
    merged = evolve("merge", facts["simple"], tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr

    monkeypatch.chdir(ROOT)
    (run / "simple" / "recipe.yml").write_text("mine", encoding="utf-8")
    kept = evolve("simplify", run, "--allow", "0.2")
    assert (kept.returncode, "recipe.yml" in kept.stderr) == (2, True)
    assert (run / "simple" / "recipe.yml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((".",), "no finished run"),
        (("nowhere",), "no such directory"),
        (("README.md",), "README.md"),
        ((), "Missing argument"),
        ((".", "."), "unexpected extra argument"),
        ((".", "--allow", "-1"), "allow"),
        ((".", "--allow", "nan"), "allow"),
        ((".", "--allow", "half"), "'--allow': expected a number of at least 0, such as 0.005 or 0.5%, got half"),
        ((".", "--allow", "-5%"), "such as 0.005 or 0.5%, got -5%"),
        ((".", "--numbers", "0"), "numbers"),
        ((".", "--numbers", "2.5"), "'--numbers': Input should be a valid integer"),
        ((".", "--number", "3"), "--numbers"),
    ],
)
def test_what_cannot_be_meant_is_refused(evolve: Any, arguments: tuple[str, ...], said: str) -> None:
    shown = evolve("simplify", *arguments)
    assert shown.returncode == 2
    assert said in " ".join(shown.stderr.split())
    assert "Traceback" not in shown.stderr


BY_LAYER = {"low": -0.5, "high": 1.5, "layers": "each"}
DENSITIES = {"low": 0.2, "high": 1.0, "layers": {"blocks": 2}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        (
            "methods by block",
            {
                "merge_method": {"choices": ["ties", "breadcrumbs"], "layers": {"blocks": 2}},
                "models": {"weight": {**BY_LAYER, "low": 0.1}, "density": DENSITIES},
            },
        ),
        (
            "path and weights",
            {"merge_method": "task_arithmetic", "models": {"weight": BY_LAYER}, "layers": "each_block"},
        ),
    ],
)
def test_best_recipes_of_other_kinds_become_short(
    evolve: Any, tmp_path: Path, kind: str, recipe: dict[str, Any]
) -> None:
    """A file of few numbers, which merges, whatever the search chose beside them."""
    models, base = [f"configs/demo_zoo/{name}" for name in ("sorting", "shift")], "configs/demo_zoo/base"
    content: dict[str, Any] = {
        "tasks": ["demo_sorting"],
        "items": {"search": 8, "held_out": 8},
        "budget": {"evaluations": 4},
        "start": {"steps": 2},
        "workers": {"count": 1, "cpus": 1},
        "simplify": False,
    }
    entries = [{"model": model, "parameters": recipe["models"]} for model in models]
    content["recipe"] = {**recipe, "base_model": base, "models": entries, "dtype": "bfloat16"}
    (tmp_path / "search.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    run = tmp_path / "run"
    done = evolve("run", tmp_path / "search.yml", "--output", run)
    assert done.returncode == 0, done.stderr
    shown = evolve("simplify", run, "--allow", "100%", "--json")
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    if kind == "methods by block":
        none = evolve("simplify", run, "--numbers", "1")
        assert (none.returncode, "numbers are needed" in none.stderr) == (2, True)  # since no weight may be 0
    documents = list(yaml.safe_load_all(Path(facts["simple"]).read_text(encoding="utf-8")))
    assert sum(map(count_numbers, documents)) == facts["numbers"] <= 4
    assert facts["numbers"] < facts["long_numbers"]
    merged = evolve("merge", facts["simple"], tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr
    again = evolve("simplify", run, "--allow", "100%", "--json")
    assert json.loads(again.stdout) == facts
