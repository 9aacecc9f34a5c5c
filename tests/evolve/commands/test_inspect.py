"""`evolve inspect` on the demo's models, from the command line."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

ZOO = "configs/demo_zoo"
EXPERTS = [f"{ZOO}/{name}" for name in ("sorting", "reversal", "shift", "swapping")]
TASKS = "demo_sorting,demo_reversal,demo_shift,demo_swapping"


def test_the_base_is_found_and_everything_is_in_the_json(evolve: Any) -> None:
    shown = evolve("inspect", *EXPERTS, f"{ZOO}/base", "--json")
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    assert facts["base"] == f"{ZOO}/base"
    assert facts["bytes_read"] < facts["bytes"]
    assert len(facts["pairs"]) == 6
    assert all(len(pair["cosine_by_layer"]) == 6 for pair in facts["pairs"])
    for pair in facts["pairs"]:  # outside the layers models differ too
        assert len(pair["distance_by_layer"]) == 6
        assert 0 < math.hypot(*pair["distance_by_layer"].values()) < pair["distance"]
        assert math.hypot(*pair["distance_by_kind"].values()) == pytest.approx(pair["distance"])
    assert facts["changes"].keys() == set(EXPERTS)


def test_without_the_base_it_is_none_of_them(evolve: Any) -> None:
    shown = evolve("inspect", *EXPERTS)
    assert (shown.returncode, "Base model: none of these" in shown.stdout) == (0, True)


def test_a_quantized_model_does_not_hide_the_base(evolve: Any, tmp_path: Path) -> None:
    recipe = {"merge_method": "passthrough", "models": [{"model": EXPERTS[2]}], "out_dtype": "fp8"}
    (tmp_path / "fp8.yml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    merged = evolve("merge", tmp_path / "fp8.yml", tmp_path / "fp8")
    assert merged.returncode == 0, merged.stderr
    others = [tmp_path / "fp8", *EXPERTS[:2]]
    facts = json.loads(evolve("inspect", *others, f"{ZOO}/base", "--json").stdout)
    assert facts["base"] == f"{ZOO}/base"
    assert facts["base_reason"].endswith(f"(without {tmp_path / 'fp8'}: quantized)")
    assert json.loads(evolve("inspect", *others, EXPERTS[3], "--json").stdout)["base"] is None


def test_a_base_that_is_named_is_taken(evolve: Any) -> None:
    facts = json.loads(evolve("inspect", *EXPERTS[:2], "--base", f"{ZOO}/base", "--json").stdout)
    assert (facts["base"], len(facts["pairs"])) == (f"{ZOO}/base", 1)


@pytest.mark.slow
def test_what_it_writes_is_a_sound_search_and_pairs_are_scored(evolve: Any, tmp_path: Path) -> None:
    written = tmp_path / "search.yml"
    found = evolve("inspect", f"{ZOO}/base", *EXPERTS, "--tasks", TASKS, "--limit", 20, "--write", written, "--json")
    assert found.returncode == 0, found.stderr
    tasks = json.loads(found.stdout)["tasks"]
    assert tasks["own_tasks"] == {expert: f"demo_{expert.rsplit('/', 1)[1]}" for expert in EXPERTS}
    assert {tuple(pair["models"]) for pair in tasks["pairs"]} == {
        (one, other) for place, one in enumerate(EXPERTS) for other in EXPERTS[place + 1 :]
    }
    assert all(-1 <= pair["lost"] <= 0.1 for pair in tasks["pairs"])
    worst, best = (extreme(tasks["pairs"], key=lambda pair: pair["lost"]) for extreme in (min, max))
    assert worst["alignment"] < best["alignment"] < 1, "the pair that loses most pulls most against one another"
    search = yaml.safe_load(written.read_text(encoding="utf-8"))
    assert search["recipe"]["base_model"] == f"{ZOO}/base"
    checked = evolve("check", written)
    assert checked.returncode == 0, checked.stderr


def test_tasks_are_those_of_a_search_wherever_they_lie(evolve: Any, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "scoring.py").write_text(
        "def always(model, items):\n    return [1.0 for item in items]\n", encoding="utf-8"
    )
    lines = "".join(json.dumps({"number": number}) + "\n" for number in range(8))
    (there / "numbers.jsonl").write_text(lines, encoding="utf-8")
    task = {"python": "scoring:always", "items": "numbers.jsonl", "weight": 0.5}
    (there / "search.yml").write_text(yaml.safe_dump({"tasks": [task]}), encoding="utf-8")
    written = tmp_path / "search.yml"
    from_it = ["--tasks-from", there / "search.yml", "--limit", 4]
    found = evolve("inspect", f"{ZOO}/base", *EXPERTS[:2], *from_it, "--write", written, "--json")
    assert found.returncode == 0, found.stderr
    (name,) = json.loads(found.stdout)["tasks"]["items"]
    assert json.loads(found.stdout)["tasks"]["scores"][EXPERTS[0]] == {name: 1.0}
    (pair,) = json.loads(found.stdout)["tasks"]["pairs"]
    assert pair["alignment"] is None, "of no item is anything known to be right"
    assert yaml.safe_load(written.read_text(encoding="utf-8"))["tasks"] == [task]
    (there / "search.yml").write_text("tasks: []\n", encoding="utf-8")
    refused = evolve("inspect", *EXPERTS, *from_it)
    assert (refused.returncode, "--tasks-from" in refused.stderr) == (2, True)


def test_a_file_that_appears_meanwhile_is_kept_and_the_search_is_beside_it(evolve: Any, tmp_path: Path) -> None:
    written = tmp_path / "search.yml"
    (tmp_path / "meanwhile.py").write_text(
        "import pathlib\n\ndef score(model, items):\n"
        f"    pathlib.Path({str(written)!r}).write_text('mine')\n    return [1.0] * len(items)\n",
        encoding="utf-8",
    )
    task = {"python": "meanwhile:score", "items": 8}
    (tmp_path / "tasks.yml").write_text(yaml.safe_dump({"tasks": [task]}), encoding="utf-8")
    options = ["--tasks-from", tmp_path / "tasks.yml", "--limit", 4, "--write", written]
    found = evolve("inspect", f"{ZOO}/base", EXPERTS[0], *options, "--json")
    assert found.returncode == 0, found.stderr
    assert written.read_text() == "mine"
    assert json.loads(found.stdout)["written"] == str(tmp_path / "search-2.yml")
    assert yaml.safe_load((tmp_path / "search-2.yml").read_text())["tasks"] == [task]
    assert f"{written} has appeared meanwhile, and is kept" in found.stderr


def test_a_model_of_another_shape_is_left_out(evolve: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(f"{ZOO}/base", other)
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "model.safetensors")
    for name in list(tensors):
        if "layers.0." in name and name.endswith("up_proj.weight"):
            tensors[name] = tensors[name][:-2].contiguous()
    save_file(tensors, other / "model.safetensors")
    shown = evolve("inspect", f"{ZOO}/base", *EXPERTS, other)
    assert shown.returncode == 0, shown.stderr
    assert "has other layers or shapes" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"{ZOO}/base"], "compares with nothing"),
        ([f"{ZOO}/base", f"{ZOO}/base"], "compares with nothing"),
        ([*EXPERTS, f"{ZOO}/nothing"], "no directory"),
        ([*EXPERTS, "--write", "x.yml"], "--tasks"),
        ([*EXPERTS, "--tasks", "demo_sorting", "--write", "configs/demo.yml"], "exists"),
        ([*EXPERTS, "--tasks", "demo_sorting", "--write", "nowhere/x.yml"], "no directory nowhere"),
        ([*EXPERTS, "--tasks", "no_such_task"], "no_such_task"),
        ([*EXPERTS, "--tasks", "demo_sorting", "--task-path", "nowhere"], "not a directory"),
        ([*EXPERTS, "--tasks", "demo_sorting", "--device", "tpu"], "device"),
        ([*EXPERTS, "--tasks", "demo_sorting", "--device", "cuda:99"], "--device: there is no cuda:99"),
        ([*EXPERTS, "--tasks", "demo_sorting", "--dtype", "float99"], "--dtype: expected"),
        ([*EXPERTS, "--tasks", "demo_sorting,demo_sorting"], "--tasks: demo_sorting is named more than once"),
        ([*EXPERTS, "--tasks", ","], "--tasks: names no task"),
        (
            [*EXPERTS, "--tasks", "a", "--tasks-from", "configs/demo.yml"],
            "--tasks-from: the tasks are those of demo.yml",
        ),
        ([*EXPERTS, "--tasks-from", "nowhere.yml"], "nowhere.yml"),
        ([*EXPERTS, ""], "the name of a model is empty"),
        ([*EXPERTS, "--base", ""], "--base: the name of a model is empty"),
        ([*EXPERTS, "configs"], "configs"),
    ],
)
def test_mistakes_are_one_line(evolve: Any, arguments: list[str], message: str) -> None:
    shown = evolve("inspect", *arguments)
    assert shown.returncode == 2, shown.stderr
    assert message in " ".join(shown.stderr.split())
    assert shown.stderr.lower().count("error:") == 1
    assert "Traceback" not in shown.stderr


def test_a_copy_is_told_and_does_not_pass_for_a_base(evolve: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(EXPERTS[0], copy)
    facts = json.loads(evolve("inspect", EXPERTS[0], copy, *EXPERTS[1:], "--json").stdout)
    assert facts["same_weights"] == {str(copy): EXPERTS[0]}
    assert facts["base"] is None
    facts = json.loads(evolve("inspect", EXPERTS[0], copy, f"{ZOO}/base", *EXPERTS[1:], "--json").stdout)
    assert facts["base"] == f"{ZOO}/base"


def test_embeddings_of_another_vocabulary_are_said_not_to_be_compared(evolve: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(EXPERTS[0], other)
    tensors = load_file(other / "model.safetensors")
    name = next(name for name in tensors if "embed_tokens" in name)
    tensors[name] = tensors[name][:-3].contiguous()
    save_file(tensors, other / "model.safetensors")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": len(tensors[name])}), encoding="utf-8")
    shown = evolve("inspect", f"{ZOO}/base", other, *EXPERTS[1:])
    assert shown.returncode == 0, shown.stderr
    told = " ".join(shown.stdout.split())
    assert "Not compared, since not all models have them in the same shape: embed_tokens.weight" in told
