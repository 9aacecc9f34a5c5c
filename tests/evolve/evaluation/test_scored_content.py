"""A worker that loads other tasks than the search was opened with scores nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from zoo_requests import settings

from evolve.evaluation.scored_content import ScoredContent
from evolve.evaluation.worker import Worker
from evolve.scoring import ConstraintConfig, TaskError, load_constraints, load_scorers, parse_task

MODULE = """
import random
def score(model, items): return [1.0 for _ in items]
def fixed(): return ["a", "b"]
def drawn(): return [random.random(), "b"]
def short(model, items): return [1.0 for _ in items]
"""


@pytest.fixture
def directory(tmp_path, monkeypatch):
    (tmp_path / "kept_scorer.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "kept_scorer", raising=False)
    return tmp_path


def loaded(directory: Path, items: str):
    task = parse_task({"python": "kept_scorer:score", "items": {"python": f"kept_scorer:{items}"}})
    constraint = ConstraintConfig.model_validate({"python": "kept_scorer:short", "items": 2, "at_most": 1})
    return task, load_scorers([task], [], 0, directory), load_constraints([constraint], [], directory)


def content(directory: Path, items: str):
    return ScoredContent.of(*loaded(directory, items)[1:], {"score": (0, 1)})


def test_what_is_loaded_again_is_the_same(directory):
    content(directory, "fixed").check(*loaded(directory, "fixed")[1:])


def test_items_that_are_made_anew_each_time_are_refused(directory):
    with pytest.raises(TaskError, match=r"task 'score': items is not what it was[^$]*same list every time"):
        content(directory, "drawn").check(*loaded(directory, "drawn")[1:])


def test_code_that_was_edited_meanwhile_is_refused_by_a_worker(directory):
    kept, (task, _, _) = content(directory, "fixed"), loaded(directory, "fixed")
    with (directory / "kept_scorer.py").open("a") as file:
        file.write("# better\n")
    worker = Worker(settings(tasks=(task,), task_search_path=(str(directory),), content=kept))
    with pytest.raises(TaskError, match=r"task 'score': kept_scorer.py is not what it was"):
        worker.start()
