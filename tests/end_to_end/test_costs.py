"""`evolve run` with costs, on the demo zoo's real models: what is as good and cheaper wins, and only for that."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from evolve.trials.journal import Journal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FUNCTIONS = '''
def always(model, items):
    """Has the model write, and is content with everything."""
    words = ["qjxzkv"[item % 6 :] + "qjxzkv"[: item % 6] for item in items]
    model.generate([f"sorting:{word}=" for word in words], max_new_tokens=12, stop=["\\n"])
    return [1.0 for _ in items]
'''
SEARCH = {
    "recipe": {  # the first layers of a model
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": "configs/demo_zoo/sorting", "layer_range": [0, {"low": 1, "high": 6}]}]}],
        "dtype": "bfloat16",
    },
    "tasks": [{"python": "content:always", "items": 8}],
    "items": {"search": 4, "held_out": 4},
    "budget": {"evaluations": 8},
    "optimizer": {"name": "random"},
    "start": "references",
    "validation": {"finalists": 2},
    "workers": {"count": 1, "cpus": 1},
}
WEIGHT = 0.3


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """One for all, since Python imports a module once."""
    path = tmp_path_factory.mktemp("costs")
    (path / "content.py").write_text(FUNCTIONS)
    return path


@pytest.fixture
def run(evolve, tmp_path, directory):
    """``run(changes)``: the printed output, what trials.csv says and what run.json says."""

    def search(**changes):
        output = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        (directory / "search.yml").write_text(yaml.safe_dump({**SEARCH, **changes}))
        done = evolve("run", directory / "search.yml", "--output", output)
        assert done.returncode == 0, done.stderr
        with (output / "trials.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return output, done.stdout, rows, json.loads((output / "run.json").read_text())

    return search


def layers_of(row):
    return int(float(row["cost.layers"]))


def test_fewer_layers_win_only_because_of_their_cost(run):
    output, printed, rows, facts = run(cost={"layers": {"weight": WEIGHT}, "parameters": {"weight": 0.01}})
    candidates = [row for row in rows if row["kind"] == "candidate"]
    fewest = min(map(layers_of, candidates))
    assert fewest < 6
    best = rows[facts["best"]]
    assert layers_of(best) == fewest
    recipe = yaml.safe_load((output / "best_recipe.yml").read_text())
    assert recipe["slices"][0]["sources"][0]["layer_range"] == [0, fewest]
    parent = rows[0]
    parameters = float(best["cost.parameters"]) / float(parent["cost.parameters"])
    expected = 1.0 - WEIGHT * (fewest / 6 - 1) - 0.01 * (parameters - 1)
    assert float(best["objective"]) == pytest.approx(expected)
    assert float(parent["objective"]) == 1.0
    assert facts["held_out"][parent["label"]] == 1.0
    assert facts["held_out"][best["label"]] == max(facts["held_out"].values()) == pytest.approx(expected)
    assert facts["objective"]["costs"]["layers"] == {"weight": WEIGHT, "best_parent": 6.0}
    assert "layers (lower is better; against the best parent)" in printed
    assert f"{WEIGHT} x (layers / 6 - 1)" in " ".join(printed.split())
    assert f"{fewest} ({fewest / 6 - 1:+.0%})".replace("%", " %") in (output / "README.md").read_text()
    _, _, rows, facts = run()
    assert facts["best"] == next(int(row["number"]) for row in rows if row["kind"] == "candidate")  # all are as good


def test_the_length_of_answers_is_an_objective_of_its_own(run):
    objectives = [["always"], ["answer_tokens"]]
    output, _, rows, facts = run(cost={"answer_tokens": {}}, objectives=objectives, optimizer={"name": "nsga2"})
    lengths = {int(row["number"]): float(row["cost.answer_tokens"]) for row in rows}
    assert len(set(lengths.values())) > 1
    assert all(1 <= length <= 12 for length in lengths.values())
    (member,) = facts["pareto_front"]  # all score the same
    assert lengths[member["number"]] == min(lengths.values()) == -member["objectives"]["answer_tokens"]
    assert "answer_tokens, search" in (output / "README.md").read_text()


def test_a_search_says_where_its_item_evaluations_went(run, evolve):
    source = {
        "model": "configs/demo_zoo/sorting",
        "layer_range": [0, 6],
        "parameters": {"scale": {"low": 0, "high": 1}},
    }
    output, printed, rows, facts = run(
        recipe={"merge_method": "passthrough", "slices": [{"sources": [source]}], "dtype": "bfloat16"},
        budget={"items": 4 * (1 + 5) + 3},
        optimizer={"name": "random", "population_size": 8},
    )
    assert sum(row["kind"] == "candidate" for row in rows) == 5
    spent = {"parents and uniform merge": 4, "candidates": 4 * 5, "held-out items": 4 * len(facts["held_out"])}
    assert facts["item_evaluations"] == spent
    assert facts["stopped_by"] == "items"
    assert sum(Journal.open(str(output / "journal.log")).spent.values()) == sum(spent.values())
    for text in (printed, (output / "README.md").read_text()):
        assert "parents and uniform merge" in text
        assert str(sum(spent.values())) in text
    status = evolve("status", output)
    assert f"item evaluations: 4 for parents and uniform merge, {spent['candidates']} for candidates" in status.stdout
