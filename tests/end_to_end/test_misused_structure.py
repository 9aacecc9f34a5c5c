"""Genes of structure, models of earlier runs and warm starts as nobody means them: a line each, and exit code 2."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_search import GOOD, write_models

from evolve.commands import cli

GENE = {"low": 0, "high": 1}
WHOLE = {"merge_method": "passthrough", "models": [{"model": "math"}], "base_model": None}
PART = [{"sources": [{"model": "math", "layer_range": [0, 2], "parameters": {"weight": GENE}}]}]


def of_recipe(**changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(GOOD)
    made["recipe"] |= changes
    made["recipe"] = {key: value for key, value in made["recipe"].items() if value is not None}
    return made


def optional(number: int, mark: Any, **changes: Any) -> dict[str, Any]:
    made = of_recipe(**changes)
    made["recipe"]["models"][number]["optional"] = mark
    return made


def methods(layers: Any, *choices: str) -> dict[str, Any]:
    return {"merge_method": {"choices": list(choices or ("ties", "task_arithmetic")), "layers": layers}}


MISUSED = {
    "a path that goes nowhere": (of_recipe(layers={"path": "sideways"}), "expected 'any' or 'same_depth'"),
    "a key that is none": (of_recipe(layers={"path": "any", "longes": 3}), "Did you mean longest?"),
    "lengths the wrong way round": (
        of_recipe(layers={"path": "any", "shortest": 3, "longest": 2}),
        "shortest 3 is above",
    ),
    "a scale of what is merged": (of_recipe(layers={"path": "any", "scale": GENE}), "only passthrough scales layers"),
    "a path beside slices": (of_recipe(models=None, slices=PART, layers="any"), "a list of models is needed"),
    "depths that leave no choice": (of_recipe(layers="same_depth"), "nothing to choose: give a shortest below"),
    "a base beside layers as they are": (
        of_recipe(**WHOLE | {"base_model": "base"}, layers="any"),
        "no meaning beside",
    ),
    "a block that cannot be passed twice": (of_recipe(layers={"repeat": "each_block", "longest": 2}), "repeats none"),
    "a path that nobody found": (of_recipe(layers={"from": "nowhere"}), "nowhere is neither beside the file nor here"),
    "a mark that is neither": (optional(0, "yes"), "expected true or false, got 'yes'"),
    "a base that is left out": (optional(0, True, base_model="math"), "a base model cannot be left out"),
    "blocks of methods that are too many": (of_recipe(**methods({"blocks": 3})), "the models have 2 layers"),
    "knots of methods": (of_recipe(**methods({"knots": 2})), "layers.knots: unknown key. Known here: blocks"),
    "a choice for layers of what has none": (
        of_recipe(dtype={"choices": ["float16", "bfloat16"], "layers": "each"}),
        "belong",
    ),
    "methods of slices": (
        of_recipe(models=None, slices=[{**PART[0], "merge_method": "ties"}]),
        'unknown key "merge_method"',
    ),
}
WARM = {
    "nowhere": "nowhere is not a directory beside the file or here",
    "search.yml": "search.yml is not a directory",
    "tasks": "tasks holds no run with a scored candidate",
    "base": "base holds no run with a scored candidate",
    "3": "warm_start: expected a list, got 3. Directories of earlier runs",
    "[3]": "warm_start[0]: expected text, got 3",
    "[[tasks]]": 'warm_start[0]: expected text, got ["tasks"]',
    "{run: tasks}": "warm_start: expected a list, got",
    "true": "warm_start: expected a list, got true",
    "[tasks, nowhere]": "tasks holds no run",
}


def said(written: dict[str, Any], place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (place / "search.yml").write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check", "search.yml"])
    printed = capsys.readouterr()
    assert stopped.value.code == 2, printed.out
    assert "Traceback" not in printed.err
    assert "error: " in printed.err
    return printed.err


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("search"))


@pytest.fixture(autouse=True)
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(models)
    return models


@pytest.mark.parametrize("name", MISUSED)
def test_structure_that_cannot_be_meant_is_told(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written, expected = MISUSED[name]
    assert expected in said(written, here, capsys)


@pytest.mark.parametrize("written", WARM)
def test_a_start_that_is_not_there_is_told(written: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert WARM[written] in said({**copy.deepcopy(GOOD), "warm_start": yaml.safe_load(written)}, here, capsys)
