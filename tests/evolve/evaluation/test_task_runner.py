"""Tasks of a candidate are scored one after the other, and none meets what another left."""

from __future__ import annotations

import os
from types import SimpleNamespace

import torch

from evolve.evaluation.task_runner import TaskRunner
from evolve.scoring import ScoredItems


def state():
    return os.getcwd(), torch.get_default_dtype(), os.environ.get("LEFT_BY_A_TASK")


def leave(where):
    os.chdir(where)
    torch.set_default_dtype(torch.float64)
    os.environ["LEFT_BY_A_TASK"] = "1"


class Task:
    """Tells what it meets, and leaves something else."""

    def __init__(self, name, where):
        self.name, self._where = name, where

    def score(self, model, items):
        self.met = state()
        leave(self._where)
        return ScoredItems(dict.fromkeys(items, 0.5))

    def aggregate(self, values):
        pass


class Constraint:
    label, answers_of, runs_user_code = "bound", None, True

    def measure(self, model, answers):
        self.met = state()
        return 0.0


def test_no_task_and_no_constraint_meets_what_a_task_before_it_left(tmp_path):
    live = SimpleNamespace(engine=SimpleNamespace(generate_tokens=0, loglikelihood=0, loglikelihood_rolling=0))
    live.changes = list
    tasks, constraint, before = [Task("a", tmp_path), Task("b", tmp_path)], Constraint(), state()
    TaskRunner(tasks, [constraint], live).score({"a": (0,), "b": (0,)}, {})
    assert [task.met for task in tasks] == [before, before]
    assert constraint.met == before
