"""`evolve eval` as its user runs it, on the demo zoo's real models and a few items."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from warm_program import run_program

ROOT = Path(__file__).resolve().parents[3]
ZOO = ROOT / "configs" / "demo_zoo"
BASE, SORTING, SHIFT = (f"configs/demo_zoo/{name}" for name in ("base", "sorting", "shift"))
ON_SORTING = ["--tasks", "demo_sorting", "--limit", "30"]
RECIPE = {
    "merge_method": "task_arithmetic",
    "base_model": str(ZOO / "base"),
    "models": [
        {"model": str(ZOO / "sorting"), "parameters": {"weight": 0.6}},
        {"model": str(ZOO / "shift"), "parameters": {"weight": 0.3}},
    ],
    "dtype": "bfloat16",
}


@pytest.fixture
def evaluate(evolve):
    return functools.partial(evolve, "eval")


def scores(done):
    return {entry["model"]: entry["tasks"] for entry in json.loads(done.stdout)["results"]}


def test_json_has_lm_evals_score_and_error_on_the_same_items(evaluate):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from evolve.scoring import split_items

    done = evaluate(BASE, *ON_SORTING, "--seed", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"results"}
    items = split_items(range(600), 30, None, 5).search
    found = simple_evaluate(
        model=HFLM(pretrained=str(ZOO / "base"), dtype="float32", device="cpu", batch_size=30),
        tasks=["demo_sorting"],
        task_manager=TaskManager(include_path=str(ROOT / "tasks" / "demo"), include_defaults=False),
        samples={"demo_sorting": list(items)},
        bootstrap_iters=10,  # of a mean the error has a closed form, but 0 turns it off
    )["results"]["demo_sorting"]
    measured = scores(done)[BASE]["demo_sorting"]["exact_match,none"]
    assert 0 < measured["value"] < 1
    assert measured == {
        "value": pytest.approx(found["exact_match,none"]),
        "stderr": pytest.approx(found["exact_match_stderr,none"]),
    }


def test_several_models_and_recipes_are_listed_with_their_differences_from_the_first(evaluate, tmp_path):
    (tmp_path / "half.yml").write_text(yaml.safe_dump({**RECIPE, "int8_mask": True}))
    done = evaluate(BASE, SORTING, tmp_path / "half.yml", *ON_SORTING[:-2], "--limit", "20")
    assert done.returncode == 0, done.stderr
    assert 'warning: ignored: half.yml: unknown key "int8_mask"' in done.stderr
    assert "demo_sorting: exact_match,none, 20 items" in done.stdout
    rows = [line for line in done.stdout.splitlines() if "[" in line]
    assert [line.count("[") for line in rows] == [1, 2, 2]
    assert "Differences: model minus configs/demo_zoo/base, paired by item" in done.stdout
    assert "[3/3]" in done.stderr
    assert "[3/3]" not in done.stdout


def test_a_recipe_scores_as_the_model_that_it_is_merged_to(evaluate, tmp_path):
    from merge_core import merge

    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(RECIPE))
    merge(tmp_path / "recipe.yml", tmp_path / "merged")
    found = scores(evaluate(tmp_path / "recipe.yml", tmp_path / "merged", *ON_SORTING, "--json"))
    assert found[str(tmp_path / "recipe.yml")] == found[str(tmp_path / "merged")]


def test_a_recipe_of_several_documents_scores_as_the_model_that_it_is_merged_to(evaluate, tmp_path):
    from merge_core import merge

    first = {**RECIPE, "name": "halfway"}
    last = {
        "merge_method": "linear",
        "models": [
            {"model": "halfway", "parameters": {"weight": 0.8}},
            {"model": str(ZOO / "swapping"), "parameters": {"weight": 0.2}},
        ],
        "dtype": "bfloat16",
    }
    (tmp_path / "both.yml").write_text(yaml.safe_dump_all([first, last]))
    merge(tmp_path / "both.yml", tmp_path / "merged")
    found = scores(evaluate(tmp_path / "both.yml", tmp_path / "merged", *ON_SORTING, "--json"))
    assert found[str(tmp_path / "both.yml")] == found[str(tmp_path / "merged")]


def test_a_model_that_fails_is_reported_and_the_others_are_scored(evaluate, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):  # and no tokenizer
        shutil.copy(ZOO / "shift" / name, broken / name)
    done = evaluate(BASE, broken, SORTING, *ON_SORTING, "--json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    results = json.loads(done.stdout)["results"]
    assert [entry.get("error") is not None for entry in results] == [False, True, False]
    assert results[1]["tasks"] == {}
    assert "demo_sorting" in results[2]["tasks"]
    listed = evaluate(BASE, broken, *ON_SORTING)
    assert listed.returncode == 1
    assert f"{broken} failed: " in listed.stdout
    assert "Brackets" in listed.stdout
    alone = evaluate(broken, *ON_SORTING)
    assert alone.stdout.startswith(f"{broken} failed: ")
    assert "Brackets" not in alone.stdout


def test_the_tasks_and_held_out_items_of_a_search(evaluate, tmp_path):
    found = evaluate(BASE, "--tasks-from", "configs/demo.yml", "--held-out", "--limit", "10", "--json")
    assert found.returncode == 0, found.stderr
    assert set(scores(found)[BASE]) == {"demo_sorting", "demo_reversal", "demo_shift", "demo_swapping"}
    listed = evaluate(BASE, "--tasks-from", "configs/demo.yml", "--held-out", "--limit", "10")
    assert "weighted mean of tasks" in listed.stdout
    assert "--held-out" not in listed.stderr


GENES = {**RECIPE, "models": [{"model": str(ZOO / "sorting"), "parameters": {"weight": {"low": 0, "high": 1}}}]}
WRONG = {
    "no task": ([BASE], "--tasks: no task is named"),
    "unknown task": ([BASE, "--tasks", "demo_sortin", *ON_SORTING[2:]], "Did you mean"),
    "unknown model": (["configs/demo_zoo/sortin", *ON_SORTING], "configs/demo_zoo/sortin"),
    "missing recipe": (["absent.yml", *ON_SORTING], "absent.yml"),
    "a recipe with genes": (
        ["genes.yml", *ON_SORTING],
        "weight: is a range to search and not a value",
    ),
    "a search": (["configs/demo.yml", *ON_SORTING], "is a search, not a recipe"),
    "no directory": ([BASE, "--tasks", "demo_sorting", "--task-path", "absent"], "--task-path: absent is not"),
    "held out of nothing": ([BASE, *ON_SORTING, "--held-out"], "--held-out"),
    "tasks twice": (
        [BASE, *ON_SORTING, "--task-path", "tasks", "--tasks-from", "configs/demo.yml"],
        "remove --tasks, --task-path",
    ),
    "wrong dtype": ([BASE, *ON_SORTING, "--dtype", "float8"], "--dtype"),
    "a device that is not here": ([BASE, *ON_SORTING, "--device", "cuda:99"], "there is no cuda:99 here"),
    "unknown backend": ([BASE, *ON_SORTING, "--backend", "onnx"], "--backend"),
}


@pytest.mark.parametrize(("arguments", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_one_line_and_exit_code_2(arguments, expected, evaluate, tmp_path):
    (tmp_path / "genes.yml").write_text(yaml.safe_dump(GENES))
    done = evaluate(*(tmp_path / "genes.yml" if text == "genes.yml" else text for text in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_backend_that_is_not_installed_is_one_line(evaluate):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed here")
    done = evaluate(BASE, *ON_SORTING, "--backend", "vllm")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "vllm" in done.stderr


def test_as_a_program_it_prints_json_and_nothing_else():
    done = run_program("eval", BASE, *ON_SORTING, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["model"] == BASE


def test_tasks_of_other_kinds_score_models_too(evaluate, tmp_path):
    (tmp_path / "book.txt").write_text("\n".join(f"{number}+{number}={2 * number}" for number in range(300)))
    (tmp_path / "marks.py").write_text(
        "def marks(model, items):\n"
        "    answers = model.generate([item['question'] for item in items], max_new_tokens=4)\n"
        "    return [float('2' in answer) for answer in answers]\n"
    )
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"question": f"{n}+1="}) + "\n" for n in range(8)))
    search = {
        "recipe": {
            "merge_method": "linear",
            "models": [
                {"model": str(ZOO / "base"), "parameters": {"weight": {"low": 0, "high": 1}}},
                {"model": str(ZOO / "sorting"), "parameters": {"weight": 1.0}},
            ],
        },
        "tasks": [
            {"perplexity": "book.txt", "alias": "book"},
            {"python": "marks:marks", "items": "questions.jsonl"},
        ],
        "task_search_path": ".",
    }
    (tmp_path / "search.yml").write_text(yaml.safe_dump(search))
    done = evaluate(BASE, SORTING, "--tasks-from", tmp_path / "search.yml", "--limit", "10", "--json")
    assert done.returncode == 0, done.stderr
    assert "--limit 10: task marks has 8 items, and is scored on all of them" in done.stderr
    assert re.search(r"warning: \d+ of these \d+ items are those .*To leave them out: --held-out", done.stderr)
    for tasks in scores(done).values():
        assert tasks.keys() == {"book", "marks"}
        ((metric, measured),) = tasks["book"].items()
        assert "bits" in metric
        assert measured["value"] > 0
