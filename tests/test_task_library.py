"""The tasks that ship are found by name, and their page says what they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from evolve.scoring import TaskError, load_scorers, parse_task
from evolve.scoring.scorers.user_files import SearchPaths, task_library

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "tasks" / "README.md").read_text(encoding="utf-8")
YAML_FILES = sorted((ROOT / "tasks").rglob("*.yaml"))


def name_of(path):
    # lm-eval's own loader knows `!function`; the name is all that is asked for here.
    return re.search(r"^task: (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[1]


def test_the_library_of_a_checkout_is_its_own_folder():
    assert task_library() == ROOT / "tasks"


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_task_is_in_the_table(path):
    assert f"| `{name_of(path)}` |" in PAGE


def test_every_file_is_on_the_page():
    for path in (ROOT / "tasks").rglob("*"):
        name = path.relative_to(ROOT / "tasks").as_posix()
        if path.is_file() and path.suffix in {".jsonl", ".txt"} | ({".py"} if "/" not in name else set()):
            assert f"`{name}`" in PAGE, name


def test_a_task_of_the_library_is_found_by_its_name_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (scorer,) = load_scorers([parse_task("demo_sorting")], [], 0, tmp_path)
    assert len(scorer.item_ids()) == 600


def test_the_users_own_task_of_that_name_wins(tmp_path):
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"q": f"{i}", "a": "x"}) + "\n" for i in range(5)))
    task = {
        "task": "demo_sorting",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "mine.jsonl"}},
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(task))
    (scorer,) = load_scorers([parse_task("demo_sorting")], [tmp_path], 0, tmp_path)
    assert len(scorer.item_ids()) == 5


def test_files_and_modules_of_the_library_come_last(tmp_path):
    assert SearchPaths(tmp_path).file("letters.py") == ROOT / "tasks" / "letters.py"
    (tmp_path / "letters.py").write_text("")
    assert SearchPaths(tmp_path).file("letters.py") == tmp_path / "letters.py"


def test_what_is_nowhere_is_said_with_the_places_looked_in(tmp_path):
    with pytest.raises(TaskError, match=re.escape(str(ROOT / "tasks"))):
        SearchPaths(tmp_path).file("nothing.jsonl")
