"""A trial: one candidate or reference, where it stands, and what it scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tasks import ItemValue


class Kind(StrEnum):
    """Why a trial exists."""

    PARENT = "parent"  # one of the models, as it is
    UNIFORM = "uniform"  # the plain average of the models
    CANDIDATE = "candidate"  # proposed by the optimizer


class State(StrEnum):
    """How far a trial has come."""

    RUNNING = "running"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"  # scored, and outside a constraint
    FAILED = "failed"


ItemScores = Mapping[str, Mapping[int, ItemValue]]
"""Task name -> item id -> the metric's value on that item, in the task's own direction."""

ItemSignals = Mapping[str, Mapping[int, float]]
"""Task name -> item id -> a continuous signal of that item, higher is better; only of tasks that have one."""

SkippedItems = Mapping[str, Mapping[int, str]]
"""Task name -> item id -> why the item has no score; only of tasks that leave such items out."""


@dataclass(frozen=True)
class Evaluation:
    """What a worker reports of one scored recipe. Exactly one of `scores` and `failure` is set.

    `constraints` are the bounded numbers, `violations` by how much some of them are outside (`Constraint.violation`).
    `skipped` are items without a score, with the reason, of tasks that allow it.
    """

    number: int
    scores: ItemScores | None = None
    signals: ItemSignals = field(default_factory=dict)
    skipped: SkippedItems = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    merge_seconds: float = 0.0
    forward_seconds: float = 0.0  # inside the model's forward
    total_seconds: float = 0.0  # merge, forward and everything around them


@dataclass(frozen=True)
class Trial:
    """One row of the journal.

    `objective` is always maximised, comes from the tasks' metrics and chooses the best; `guide` is what the optimizer
    is told, the same unless a task's `signal` says otherwise. `task_scores` are in each task's own direction. An
    infeasible trial has task scores and no objective: it can be neither the best nor a parent to beat.
    """

    number: int
    kind: Kind
    label: str  # a parent's reference, "uniform", or "candidate 17"
    batch: int  # -1 for parents and the uniform merge
    recipe: Mapping[str, Any]
    state: State = State.RUNNING
    vector: tuple[float, ...] | None = None  # point of the unit cube; None for references
    genes: Mapping[str, Any] = field(default_factory=dict)
    scores: ItemScores = field(default_factory=dict)
    signals: ItemSignals = field(default_factory=dict)
    task_scores: Mapping[str, float] = field(default_factory=dict)
    objective: float | None = None
    objectives: tuple[float, ...] = ()  # those that are kept apart; empty where there is one
    guide: float | tuple[float, ...] | None = None
    skipped: SkippedItems = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    merge_seconds: float = 0.0
    forward_seconds: float = 0.0
    total_seconds: float = 0.0

    @property
    def is_reference(self) -> bool:
        """True for the parents and the uniform merge."""
        return self.kind is not Kind.CANDIDATE


def best_of(trials: list[Trial]) -> Trial | None:
    """The complete trial with the highest objective; the earliest of equals."""
    complete = [trial for trial in trials if trial.objective is not None]
    return max(complete, key=lambda trial: (trial.objective, -trial.number), default=None)
