"""`evolve sweep` on the demo's models, from the command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo_search import demo_search

from evolve.actions.sweep import run_sweep
from evolve.optimizers.own_optimizer import OptimizerFailedError
from evolve.search_loop.open_evaluator import open_evaluator
from evolve.sweep.prepare_sweep import prepare_sweep
from merge_core.ownership import list_files


def written(directory: Path, sweep: dict[str, Any] | None, weight: Any = 0.5, **more: Any) -> Path:
    sections = more if sweep is None else {**more, "sweep": sweep}
    return demo_search(directory / "sweep.yml", weight, items=(24, 12), **sections)


@pytest.mark.slow
def test_recipes_are_compared_and_the_best_is_written(evolve: Any, tmp_path: Path) -> None:
    vary = {"recipe.merge_method": ["task_arithmetic", "ties"], "recipe.models.0.parameters.weight": [0.2, 0.6]}
    path, output = written(tmp_path, {"vary": vary}), tmp_path / "out"
    shown = evolve("sweep", path, "--output", output, "--json")
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    assert len(facts["variants"]) == 4
    assert all("weight[sorting]=" in one["variant"] for one in facts["variants"])
    heights = [one["held_out"]["value"] for one in facts["variants"] if one["held_out"]]
    assert heights == sorted(heights, reverse=True)
    best = yaml.safe_load((output / "best_recipe.yml").read_text(encoding="utf-8"))
    assert best["merge_method"] == facts["variants"][0]["settings"]["recipe.merge_method"]
    with (output / "sweep.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == [one["variant"] for one in facts["variants"]]
    assert {row["recipe.merge_method"] for row in rows} == {"task_arithmetic", "ties"}  # as a spreadsheet has names
    again = evolve("sweep", path, "--output", output, "--json")
    assert json.loads(again.stdout) == facts
    (output / "best_recipe.yml").write_text("mine", encoding="utf-8")
    kept = evolve("sweep", path, "--output", output)
    assert (kept.returncode, "best_recipe.yml" in kept.stderr) == (2, True)
    assert (output / "best_recipe.yml").read_text(encoding="utf-8") == "mine"


@pytest.mark.slow
def test_a_variant_that_fails_is_in_the_table_and_in_the_exit_code(evolve: Any, tmp_path: Path) -> None:
    path = written(tmp_path, {"vary": {"recipe.dtype": ["float16", "bfloat16"]}}, weight=1e7)
    shown = evolve("sweep", path, "--output", tmp_path / "out", "--json")
    assert shown.returncode == 1, shown.stderr
    facts = json.loads(shown.stdout)
    assert [bool(one["failure"]) for one in facts["variants"]] == [False, True]
    assert facts["best"]["variant"] == facts["variants"][0]["variant"]
    assert (tmp_path / "out" / "best_recipe.yml").is_file()


@pytest.mark.slow
def test_scores_of_another_merge_method_of_ones_own_are_not_taken_for_its_own(
    evolve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, {"vary": {"recipe.models.0.parameters.weight": [0.2, 0.6]}})
    assert evolve("sweep", path, "--output", tmp_path / "out").returncode == 0
    monkeypatch.setattr("evolve.actions.sweep.method_keys", lambda names, directory: {f"merge_method {names}": "new"})
    changed = evolve("sweep", path, "--output", tmp_path / "out")
    assert (changed.returncode, "other models, tasks, items, code or versions" in changed.stderr) == (2, True)


@pytest.mark.slow
def test_the_best_of_an_earlier_run_is_a_model_of_recipes_that_are_compared(evolve: Any, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    path = demo_search(tmp_path / "sweep.yml", 0.5, experts=("shift", "reversal"), items=(4, 2))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    (earlier / "best_recipe.yml").write_text(yaml.safe_dump(content["recipe"]), encoding="utf-8")
    (earlier / "search.yml").write_text("seed: 0\n", encoding="utf-8")
    list_files(earlier)
    content["recipe"]["models"][0]["model"] = "earlier"
    content["sweep"] = {"vary": {"recipe.models.0.parameters.weight": [0.2, 0.6]}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    shown = evolve("sweep", path, "--output", tmp_path / "out", "--json")
    assert shown.returncode == 0, shown.stderr
    assert all(one["search"] is not None for one in json.loads(shown.stdout)["variants"])
    made, result = yaml.safe_load_all((tmp_path / "out" / "best_recipe.yml").read_text(encoding="utf-8"))
    assert [made["name"], result["models"][0]["model"]] == ["earlier", "earlier"]


@pytest.mark.slow
def test_searches_are_compared_each_in_its_own_directory(
    evolve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gene = {"low": 0.0, "high": 1.0}
    more = {"budget": {"evaluations": 2}, "start": "references", "workers": {"count": 1}}
    path = written(tmp_path, {"vary": {"seed": [0, 1]}}, gene, **more)
    shown = evolve("sweep", path, "--output", tmp_path / "out")
    assert shown.returncode == 0, shown.stderr
    assert "Over seeds" in shown.stdout
    assert "Best" not in shown.stdout  # of other items none is the best
    lines = [line for line in shown.stderr.splitlines() if "held out," in line]
    assert [line.split(":")[0] for line in lines] == ["[1/2] seed=0", "[2/2] seed=1"]
    for seed in (0, 1):
        assert (tmp_path / "out" / f"seed={seed}" / "model" / "config.json").is_file()
    table = shown.stdout
    again = evolve("sweep", path, "--output", tmp_path / "out")
    assert again.stdout == table
    shutil.rmtree(tmp_path / "out" / "seed=1")  # is searched again
    assert evolve("sweep", path, "--output", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "seed=1" / "model" / "config.json").is_file()
    for module in ("evolve.sweep.search_sweep", "evolve.actions.open_run"):
        monkeypatch.setattr(f"{module}.fingerprints", lambda prepared: {"task 'demo_shift': prompts": "others"})
    changed = evolve("sweep", path, "--output", tmp_path / "out")
    assert changed.returncode == 1
    assert "[2/2] seed=1: failed: " in changed.stderr
    assert "cannot be compared with new ones" in changed.stderr


def test_a_search_that_fails_in_its_own_way_costs_no_other(tmp_path: Path) -> None:
    def run(prepared: Any, output: Path, *_: object) -> Any:
        raise OptimizerFailedError("mine:Mine: ask failed")

    path = written(tmp_path, {"vary": {"seed": [0, 1]}}, {"low": 0.0, "high": 1.0}, budget={"evaluations": 2})
    outcome = run_sweep(prepare_sweep(path, {}), tmp_path / "out", run, lambda line: None)
    assert [one["failure"] for one in outcome.facts["variants"]] == ["mine:Mine: ask failed"] * 2
    assert outcome.failed


@pytest.mark.faults
def test_searches_on_one_pool_of_workers_find_what_they_find_one_after_the_other(
    evolve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def counted(settings: Any, workers: Any, ray: Any) -> Any:
        started.append(workers.count)
        return open_evaluator(settings, workers, ray)

    monkeypatch.setattr("evolve.actions.sweep.open_evaluator", counted)
    vary = {"recipe.merge_method": ["task_arithmetic", "ties"]}
    tables = []
    for count in (2, 1):
        more = {"budget": {"evaluations": 6}, "start": "references", "workers": {"count": count, "cpus": 1}}
        path = written(tmp_path, {"vary": vary}, {"low": 0.4, "high": 0.6}, **more)
        shown = evolve("sweep", path, "--output", tmp_path / f"out{count}", "--json")
        assert shown.returncode == 0, shown.stderr
        rows = json.loads(shown.stdout)["variants"]
        tables.append([{k: v for k, v in row.items() if k not in ("seconds", "directory")} for row in rows])
    assert tables[0] == tables[1]
    assert started == [2, 1]  # workers stay for the next variant


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (None, "has no sweep section"),
        ({"vary": {}}, "varies nothing"),
        ({"vary": {"recipe.merge_method": ["tise"]}}, "tise"),
        ({"vary": {"recipe.models.7.parameters.weight": [1]}}, "recipe.models"),
        ({"vary": {"items.search": [10, 20]}}, "on the same items"),
        ({"vary": {"recipe.models.0.parameters.weight": [0.5, {"low": 0, "high": 1}]}}, "some variants hold genes"),
        ({"vary": {"seed": "0-3"}}, "sweep.vary.seed"),
        ({"variants": {"a": {"recipe.models.0.model": "nowhere"}}}, "nowhere"),
        ({"vary": {"recipe.dtype": ["float99"]}}, "float99"),
        ({"sampel": 3, "vary": {"seed": [1]}}, "sampel"),
        ({"vary": {"sweep.sample": [1, 2]}}, "is the sweep itself"),
        ({"vary": {"recipe.models.0.parameters.weight": [0.5, 0.5]}}, "have the same name"),
        ({"variants": {"a": {"seed": 1}}}, "on the same items"),
        ({"vary": {"recipe.merge_method": ["ties"]}, "race": "never"}, "sweep.race"),
        ({"vary": {"recipe.merge_method": "ties"}}, "sweep.vary.recipe.merge_method"),
        ({"vary": {"recipe.merge_method": [None]}}, "merge_method"),
        ({"variants": {"a": "recipe.merge_method=ties"}}, "sweep.variants.a"),
        ({"vary": {"recipe.nonsense": [1, 2]}}, "nonsense"),
        ({"vary": {"output": ["a", "b"]}}, "Vary recipe"),
        ({"vary": {"": [1]}}, "a setting without a name"),
        ({"variants": {"": {"recipe.merge_method": "ties"}}}, "a variant without a name"),
        ({"variants": {"..": {"recipe.merge_method": "ties"}, "!": {"recipe.merge_method": "della"}}}, "same name"),
    ],
)
def test_mistakes_are_told_before_anything_is_scored(
    evolve: Any, tmp_path: Path, sweep: dict[str, Any] | None, message: str
) -> None:
    shown = evolve("sweep", written(tmp_path, sweep), "--output", tmp_path / "out")
    assert shown.returncode == 2, shown.stderr
    assert message in " ".join(shown.stderr.split())
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    "more",
    [
        {"constraints": [{"python": "empty_rate", "answers_of": "demo_sorting", "at_most": 0.1}]},
        {"cost": {"parameters": {"weight": 0.1}}},
        {"normalize": "parents"},
    ],
)
def test_recipes_are_not_compared_by_less_than_the_file_says(evolve: Any, tmp_path: Path, more: dict[str, Any]) -> None:
    path = written(tmp_path, {"vary": {"recipe.merge_method": ["ties"]}}, **more)
    shown = evolve("check", path)
    assert shown.returncode == 2, shown.stdout
    assert f"{next(iter(more))}: holds for searches" in " ".join(shown.stderr.split())


def test_a_directory_that_holds_something_else_is_left_alone(evolve: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    shown = evolve("sweep", written(tmp_path, {"vary": {"recipe.dtype": ["float32"]}}), "--output", tmp_path)
    assert (shown.returncode, "and no sweep" in shown.stderr) == (2, True)


def test_a_sweep_is_no_run(evolve: Any, tmp_path: Path) -> None:
    path = written(tmp_path, {"vary": {"seed": [0]}}, {"low": 0, "high": 1})
    shown = evolve("run", path, "--output", tmp_path / "out")
    assert (shown.returncode, "evolve sweep" in shown.stderr) == (2, True)


def test_variants_say_whose_setting_varies(evolve: Any, tmp_path: Path) -> None:
    vary = {"recipe.models[0].parameters.weight.high": [0.5], "tasks[1].weight": [2]}
    shown = evolve("check", written(tmp_path, {"vary": vary}, {"low": 0.0, "high": 1.0}), "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["variants"] == ["weight[sorting].high=0.5, weight[demo_shift]=2"]


@pytest.mark.parametrize(("weight", "kind"), [(0.5, "recipes"), ({"low": 0.0, "high": 1.0}, "searches")])
def test_check_tells_the_variants(evolve: Any, tmp_path: Path, weight: Any, kind: str) -> None:
    path = written(tmp_path, {"vary": {"recipe.merge_method": ["task_arithmetic", "ties"]}}, weight)
    shown = evolve("check", path, "--json")
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    assert facts["kind"] == f"sweep of {kind}"
    assert facts["variants"] == ["merge_method=task_arithmetic", "merge_method=ties"]
    wrong = evolve("check", written(tmp_path, {"vary": {"recipe.merge_method": ["tise"]}}, weight))
    assert (wrong.returncode, "tise" in wrong.stderr) == (2, True)
