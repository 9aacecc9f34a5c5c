"""What the search tells whoever is watching. Watchers never influence the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from evolve.trials.trial import Trial


@dataclass(frozen=True)
class Preparing:
    """Something is begun that takes a while, before anything can be scored."""

    what: str


@dataclass(frozen=True)
class RunStarted:
    """The plan of the run, before any model is loaded."""

    output: Path
    task_names: Sequence[str]
    genes: int
    optimizer: str
    start: str  # how the search opens, and why so
    evaluation_budget: int | None  # candidates; None when only time, target or plateau bound the run
    workers: int
    resumed: Sequence[Trial] = ()  # finished trials found in the journal
    minimized_tasks: Sequence[str] = ()  # where lower is better
    item_evaluations: int = 0  # of the search, by earlier processes
    item_budget: int | None = None  # item evaluations; None where they are not bounded


@dataclass(frozen=True)
class ModelsRead:
    """The first candidate is merged, which brings the models into memory."""

    done: int  # bytes
    total: int


@dataclass(frozen=True)
class WorkBegun:
    """A worker was given something to do."""

    labels: Sequence[str]  # what all workers are at, the oldest first


@dataclass(frozen=True)
class TrialFinished:
    """One more trial is in the journal, complete or failed."""

    trial: Trial
    best: Trial | None  # over everything, references included
    best_parent: Trial | None
    uniform: Trial | None
    candidates_done: int
    evaluation_budget: int | None
    seconds_per_evaluation: float  # of wall time, all workers together
    seconds_left: float | None  # None when unknown
    item_evaluations: int = 0  # of the search so far
    costs: Mapping[str, float] = field(default_factory=dict)  # of the best, where the search measures any


class StopReason(StrEnum):
    """Why a search proposes no further candidates; the values are those of run.json."""

    INTERRUPTED = "interrupted"  # from outside, as by Ctrl-C
    PAUSED = "paused"  # to be compared with others, before it goes on
    EVALUATIONS = "evaluations"
    ITEMS = "items"
    MINUTES = "minutes"
    TARGET = "target"
    PLATEAU = "plateau"
    EXHAUSTED = "exhausted"  # the optimizer has nothing new to propose
    SOLVED = "solved"  # every search item is right


@dataclass(frozen=True)
class GradientStepped:
    """The gradient start made a step."""

    start: str  # where it came from
    step: int
    most: int  # steps at most
    probability: float  # of a right answer, the mean over tasks, on the items of the step
    replayed: bool = False  # made by an earlier process, and read from the journal
    item_evaluations: int = 0  # of the search so far


@dataclass(frozen=True)
class PointLookedAt:
    """A start, or a point on the way of the gradient, was scored on some of the items."""

    label: str
    vector: tuple[float, ...]
    objective: float  # on these items
    items: int
    best: float  # of all points so far, on the same items
    gained: bool = False  # whether it is better than all before it
    replayed: bool = False  # by an earlier process
    item_evaluations: int = 0  # of the search so far


@dataclass(frozen=True)
class StopAsked:
    """The search was asked to stop, and will when what it is at is finished."""

    scoring: Sequence[str]  # labels of the candidates and references that are begun and not scored
    candidates_done: int
    best: Trial | None


@dataclass(frozen=True)
class SearchStopped:
    """No further candidates are proposed."""

    reason: StopReason
    candidates_done: int
    bound: float | None = None  # of the budget, where that is the reason
    since_best: int = 0  # candidates in order of asking after the best on the search items, the first of equals


@dataclass(frozen=True)
class FinalistScored:
    """One of the finalists or references was scored on the held-out items."""

    trial: Trial
    held_out_score: float
    done: int
    total: int


@dataclass(frozen=True)
class RunFinished:
    """Everything is on disk."""

    output: Path
    best: Trial
    files: Mapping[str, Path]  # "recipe", "model", "card", "trials"
    summary: str  # the score table, ready to print


Event = (
    Preparing
    | RunStarted
    | ModelsRead
    | WorkBegun
    | GradientStepped
    | PointLookedAt
    | TrialFinished
    | StopAsked
    | SearchStopped
    | FinalistScored
    | RunFinished
)


class Watcher(Protocol):
    """Receives every event, in order."""

    def __call__(self, event: Event) -> None: ...
