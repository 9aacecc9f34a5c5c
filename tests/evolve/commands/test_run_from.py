"""`evolve run --from`: an earlier run's search, with what is changed said, in a directory of its own."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from demo_search import ZOO, demo_search

SMALL = {"budget": {"evaluations": 2}, "start": "references", "validation": {"finalists": 0}}


@pytest.mark.slow
def test_the_search_of_a_run_is_run_again_elsewhere_and_what_differs_is_said(evolve: Any, tmp_path: Path) -> None:
    first, beside = tmp_path / "first", tmp_path / "beside the search"
    beside.mkdir()
    search = demo_search(beside / "search.yml", {"low": 0.0, "high": 1.0}, items=(8, 8), output=str(first), **SMALL)
    _found_beside(search)
    assert evolve("run", search).returncode == 0
    left = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    done = evolve("run", "--from", first, "--seed", "1", "--set", "tasks[1].weight=2")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "first-2: " in said
    assert "seed: 0 → 1" in said
    assert "tasks[1].weight: 1.0 → 2" in said
    again = yaml.safe_load((tmp_path / "first-2" / "search.yml").read_text(encoding="utf-8"))
    assert (again["seed"], again["tasks"][1]["weight"]) == (1, 2)
    assert {file: file.read_bytes() for file in first.rglob("*") if file.is_file()} == left
    assert evolve("run", tmp_path / "first-2").returncode == 0  # as any run, it goes on by its directory
    assert not (tmp_path / "first-3").exists()
    merged = evolve("merge", first / "best_recipe.yml", tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr


def _found_beside(search: Path) -> None:
    """Models, and a task's function and items, that are only found from where the search is written."""
    text = search.read_text(encoding="utf-8")
    for name in ("base", "sorting", "shift"):
        (search.parent / name).symlink_to((ZOO / name).resolve())
        text = text.replace(str(ZOO / name), name)
    (search.parent / "mine.txt").write_text("\n".join("abcdefghijklmnop"), encoding="utf-8")
    (search.parent / "mine.py").write_text("def half(model, items):\n    return [0.5] * len(items)\n", encoding="utf-8")
    content = yaml.safe_load(text)
    content["tasks"][1] = {"python": "mine:half", "items": "mine.txt"}
    search.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_what_cannot_be_taken_up_is_told(evolve: Any, tmp_path: Path) -> None:
    inside = tmp_path / "runs" / "one"
    inside.mkdir(parents=True)
    search = demo_search(inside / "search.yml", {"low": 0.0, "high": 1.0}, items=(8, 8))
    for arguments, message in (
        (("--from", tmp_path / "runs"), "Runs in it"),
        (("--from", tmp_path / "nowhere"), "holds no run"),
        (("--from", search), "holds no run"),
        (("--from", inside, "--output", inside), "name another --output"),
        ((search, "--from", inside), "Name one"),
        ((), "evolve run search.yml"),
        (("--from", inside, "--set", "budgets.items=3"), "budgets"),
        (("--from", inside, "--set", "recipe.models[7].model=x"), "places 0 to 1"),
    ):
        shown = evolve("run", *arguments)
        assert shown.returncode == 2, shown.stderr
        assert message in " ".join(shown.stderr.split())
        assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    "more", [(), ("--output", "elsewhere"), ("--set", "seed=3"), ("--output", "a b", "--set", "seed=3")]
)
@pytest.mark.parametrize("name", ["search.yml", "runs/int"])
def test_what_goes_on_with_a_run_is_what_was_typed(
    evolve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: tuple[str, ...]
) -> None:
    (tmp_path / "runs" / "int").mkdir(parents=True)
    for file in ("search.yml", "runs/int/search.yml"):
        (tmp_path / file).write_text("", encoding="utf-8")
    prepared = SimpleNamespace(warnings=(), default_output=Path("runs/search"))
    stopped = SimpleNamespace(interrupted=True, best=None)
    monkeypatch.setattr("evolve.config.reader.read_search", lambda *arguments, **options: None)
    monkeypatch.setattr("evolve.preflight.prepare.prepare", lambda *arguments: prepared)
    monkeypatch.setattr("evolve.actions.run.run", lambda *arguments, **options: stopped)
    monkeypatch.chdir(tmp_path)
    said = evolve("run", name, *more).stderr
    assert said.rstrip().endswith(f"Go on with: {shlex.join(['evolve', 'run', name, *more])}")
