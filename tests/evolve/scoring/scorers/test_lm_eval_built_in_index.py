"""lm-eval's index of its own tasks is made once, and whatever becomes of the file, it is that index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_eval.tasks
import pytest
from lm_eval.tasks._index import Entry, Kind

from evolve.scoring.scorers.lm_eval.built_in_index import built_in_index

PACKAGE = Path(lm_eval.tasks.__file__).parent
TASK = PACKAGE / "gsm8k" / "gsm8k.yaml"
INDEX = {
    "gsm8k": Entry("gsm8k", Kind.TASK, TASK, {"task": "gsm8k"}, {"math_word_problems"}),
    "gsm8k_class": Entry("gsm8k_class", Kind.PY_TASK, TASK, {"class": str(TASK)}),
    "group": Entry("group", Kind.GROUP, TASK, {"group": "group", "task": ["gsm8k"]}),
    "math_word_problems": Entry("math_word_problems", Kind.TAG, None, None, {"gsm8k"}),
}


def without_content(index: dict[str, Any]) -> dict[str, Any]:
    return {name: (entry.name, entry.kind, entry.yaml_path, entry.tags) for name, entry in index.items()}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """One for every time that lm-eval was asked for its index."""
    times: list[int] = []

    def manager() -> SimpleNamespace:
        times.append(1)
        return SimpleNamespace(task_index=INDEX)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", manager)
    return times


def look_up() -> dict[str, Any]:
    return built_in_index.__wrapped__()


def test_it_is_lm_evals_and_made_once(made: list[int], tmp_path: Path):
    for _ in range(3):
        assert without_content(look_up()) == without_content(INDEX)
    assert len(made) == 1
    (file,) = (tmp_path / "evolve-merge").iterdir()
    assert file.suffix == ".json"


def test_another_version_of_lm_eval_has_an_index_of_its_own(made: list[int], monkeypatch: pytest.MonkeyPatch):
    look_up()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    look_up()
    assert len(made) == 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a list": lambda content: b"[1, 2]",
    "no entries": lambda content: b"{}",
    "other entries": lambda content: b'{"gsm8k": 3}',
    "no kind": lambda content: content.replace(b"TASK", b"CAKE"),
    "no text": lambda content: b"\xff\xfe",
    "files that are gone": lambda content: content.replace(b"gsm8k.yaml", b"gone.yaml"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_anew(damage: Callable[[bytes], bytes], made: list[int], tmp_path: Path):
    look_up()
    (file,) = (tmp_path / "evolve-merge").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    for _ in range(2):
        assert without_content(look_up()) == without_content(INDEX)
    assert len(made) == 2


@pytest.mark.parametrize("has_home", [True, False])
def test_without_a_place_for_it_the_index_is_made_each_time(
    has_home: bool, made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file") if has_home else "")
    monkeypatch.setattr(Path, "home", unknown)
    for _ in range(2):
        assert without_content(look_up()) == without_content(INDEX)
    assert len(made) == 2
