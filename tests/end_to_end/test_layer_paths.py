"""`evolve run` over the layers of the demo zoo's models: blocks passed twice, any path, weights on a path."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import yaml

from merge_core import Recipe, fingerprint, load_recipes
from merge_core.checkpoint.reader import Checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ZOO = "configs/demo_zoo"
SEARCH = {
    "tasks": ["demo_sorting"],
    "items": {"search": 12, "held_out": 12},
    "validation": {"finalists": 2},
    "workers": {"count": 1, "cpus": 1},
}


def paths(*models: str, layers) -> dict:
    return {
        "merge_method": "passthrough",
        "models": [{"model": f"{ZOO}/{model}"} for model in models],
        "layers": layers,
        "dtype": "bfloat16",
    }


@pytest.fixture
def run(evolve, tmp_path):
    def search(recipe, name="search", returncode=0, **changes):
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump({**SEARCH, "recipe": recipe, **changes}))
        done = evolve("run", tmp_path / f"{name}.yml", "--output", tmp_path / name)
        assert done.returncode == returncode, done.stderr
        return done, tmp_path / name

    return search


def rows(output) -> list[dict[str, str]]:
    with (output / "trials.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == "candidate"]


def test_each_block_is_tried_once_and_a_map_says_what_it_does(run):
    done, output = run(paths("base", layers="each_block"))
    tried = {(int(float(row["gene.repeat.first"])), int(float(row["gene.repeat.layers"]))) for row in rows(output)}
    blocks = {(first, count) for first in range(6) for count in range(1, 7 - first)}
    assert blocks <= tried
    assert len(rows(output)) == len(blocks) + 1
    assert "each block of layers passed twice" in done.stdout.lower()
    lines = done.stdout.splitlines()
    start = lines.index("first layer down, last layer across")
    assert [len(line.split()) for line in lines[start + 2 : start + 8]] == [7, 6, 5, 4, 3, 2]


def test_a_path_is_saved_as_it_was_scored_and_weights_are_searched_on_it(run, evolve, tmp_path):
    _, output = run(paths("sorting", "reversal", layers={"path": "any", "longest": 8}), budget={"evaluations": 12})
    assert "path" in json.loads((output / "run.json").read_text())["optimizer"]
    (recipe,) = load_recipes(output / "best_recipe.yml")
    assert recipe.merge_method == "passthrough"
    saved = Checkpoint.open(output / "model")
    summary = json.loads((output / "run.json").read_text())
    assert fingerprint((name, saved.read(name)) for name in saved.tensors) == summary["fingerprint"]

    entries = [
        {"model": f"{ZOO}/{name}", "parameters": {"weight": {"low": 0, "high": 1}}} for name in ("sorting", "reversal")
    ]
    merge = {"merge_method": "linear", "models": entries, "layers": {"from": "search"}, "dtype": "bfloat16"}
    _, output = run(merge, "weights", budget={"evaluations": 3}, start="references")
    best = Recipe.from_mapping(yaml.safe_load((output / "best_recipe.yml").read_text()))
    ranges = [part.sources[0].layer_range for part in best.slices]
    assert ranges == [part.sources[0].layer_range for part in recipe.slices]
    assert all(len(part.sources) == 2 for part in best.slices)


def test_a_run_that_was_cut_short_goes_on_to_the_same_trials(run, tmp_path):
    recipe = paths("sorting", "reversal", layers="any")
    _, whole = run(recipe, "whole", budget={"evaluations": 14})
    run(recipe, "cut", budget={"evaluations": 6})
    _, cut = run(recipe, "cut", budget={"evaluations": 14})
    assert [row["gene.layer0"] for row in rows(cut)] == [row["gene.layer0"] for row in rows(whole)]
    assert (cut / "best_recipe.yml").read_text() == (whole / "best_recipe.yml").read_text()


def test_a_model_that_harms_is_switched_off(run, tmp_path):
    """A model of noise is worth leaving out, which a weight that cannot be 0 cannot do."""
    shutil.copytree(ZOO, tmp_path / "zoo")
    entries = [
        {"model": f"{ZOO}/sorting", "parameters": {"weight": {"low": 0.5, "high": 1.0}}},
        {"model": f"{ZOO}/shift", "optional": True, "parameters": {"weight": {"low": 0.8, "high": 1.0}}},
    ]
    recipe = {"merge_method": "task_arithmetic", "base_model": f"{ZOO}/base", "models": entries, "dtype": "bfloat16"}
    _, output = run(recipe, budget={"evaluations": 10}, optimizer={"name": "tpe"}, start="references")
    best = yaml.safe_load((output / "best_recipe.yml").read_text())
    assert [entry["model"] for entry in best["models"]] == [f"{ZOO}/sorting"]
    without = [row for row in rows(output) if row["gene.use[shift]"].lower() == "false"]
    assert without
    assert all(row["gene.weight[shift]"] == "" for row in without)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"from": "nowhere"}, "nowhere is neither beside the file nor here"),
        ({"from": f"{ZOO}/README.md"}, "README.md"),
        ({"repeat": "each_block", "longest": 6}, "has 6 layers, so a longest of 6 repeats none"),
        ({"path": "sideways"}, "expected"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(run, layers, said):
    done, _ = run(paths("sorting", layers=layers), returncode=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_method_for_each_half_of_the_layers_is_saved_as_documents(run):
    entries = [
        {"model": f"{ZOO}/{name}", "parameters": {"weight": {"low": 0.2, "high": 1}, "density": 0.6}}
        for name in ("sorting", "shift")
    ]
    recipe = {
        "merge_method": {"choices": ["ties", "dare_linear"], "init": "dare_linear", "layers": {"blocks": 2}},
        "base_model": f"{ZOO}/base",
        "models": entries,
        "dtype": "bfloat16",
    }
    few = {"budget": {"evaluations": 6}, "validation": {"finalists": 4}, "start": "references"}
    _, output = run(recipe, optimizer={"name": "random"}, **few)
    stacked = [row for row in rows(output) if row["gene.merge_method.layers0-2"] != row["gene.merge_method.layers3-5"]]
    assert stacked
    assert all(row["state"] == "complete" and not row["failure"] for row in rows(output))
    summary = json.loads((output / "run.json").read_text())
    documents = load_recipes(output / "best_recipe.yml")
    assert len(documents) in (1, 3)
    saved = Checkpoint.open(output / "model")
    assert fingerprint((name, saved.read(name)) for name in saved.tensors) == summary["fingerprint"]
