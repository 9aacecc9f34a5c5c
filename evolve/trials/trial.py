"""A trial: one candidate or reference, where it stands, and what it scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

from evolve.trials.clean_text import clean_line

if TYPE_CHECKING:  # which takes long to import
    from evolve.scoring import ItemValue


class Kind(StrEnum):
    """Why a trial exists."""

    PARENT = "parent"  # one of the models, as it is
    UNIFORM = "uniform"  # the plain average of the models
    CANDIDATE = "candidate"  # a point of the search space


OPENING = -1
"""The batch of what no optimizer asked for: references, and candidates that are scored before it is asked."""


class State(StrEnum):
    """How far a trial has come."""

    RUNNING = "running"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"  # scored, and outside a constraint
    STOPPED = "stopped"  # by a race, before it saw all items
    FAILED = "failed"


class Stopped(StrEnum):
    """On which side of the cut between those that an optimizer selects and the rest a race settled a candidate."""

    ABOVE = "above"
    BELOW = "below"


ItemScores: TypeAlias = "Mapping[str, Mapping[int, ItemValue]]"
"""Task name -> item id -> the metric's value on that item, in the task's own direction."""

ItemSignals = Mapping[str, Mapping[int, float]]
"""Task name -> item id -> a continuous signal of that item, higher is better; only of tasks that have one."""

SkippedItems = Mapping[str, Mapping[int, str]]
"""Task name -> item id -> why the item has no score; only of tasks that leave such items out."""

ItemAnswers = Mapping[str, Mapping[int, list[list[int]]]]
"""Task name -> item id -> prompt and answer in tokens, the prompt empty where the task knows it; of references."""

Fitness = float | tuple[float, ...]
"""What an optimizer is told of a trial: a number, or one for each objective of a Pareto search; larger is better."""


@dataclass(frozen=True)
class Censored:
    """The fitness of a candidate that was stopped early: known only to be below what the optimizer selects.

    Attributes:
        estimate: its fitness on the items that it was scored on; it orders such candidates among themselves.
    """

    estimate: Fitness


Result = Fitness | Censored | None
"""All that an optimizer is told of a candidate; None: it failed."""


@dataclass(frozen=True)
class Evaluation:
    """What a worker measured of one recipe; with a `failure` it has no scores.

    The journal writes and reads every field, so a new measurement is a new field with a default.

    Attributes:
        number: of the trial.
        scores: what the tasks' metrics say, item by item.
        signals: continuous signals of the items.
        skipped: items without a score, with the reason, of tasks that allow it.
        answers: what the model wrote, where that was asked for.
        target_counts: task name -> of how many of its items the task knows what is right, where answers were asked for.
        gold_shares: task name -> the share of these answers that are, token by token, what the task calls right.
        constraints: the bounded numbers.
        violations: by how much some of them are outside (`Constraint.violation`).
        failure: why it could not be scored; None when it was.
        unforeseen: whether the failure is an error that nobody foresaw, which may be the machine's.
        stopped: where a race settled it before it saw all items, whose scores are unknown; None when it saw all.
        estimate: of the fitness of one that was stopped.
        restored: task or constraint whose code changed the live model, which was restored -> what it changed.
        restart: why the engine was started anew before it; None where it was not.
        reused_items: how many of its items were scored before, for another purpose.
        lost_items: how many items were scored before it failed.
        answer_counts: task name -> answers that the model wrote while it was scored; only of tasks that have it write.
        answer_tokens: task name -> their length in tokens, all together.
        parameters: of the model.
        layers: of the model.
        merge_seconds: writing the weights into the live model.
        forward_seconds: inside the model's forward.
        total_seconds: merge, forward and everything around them.
    """

    number: int
    scores: ItemScores = field(default_factory=dict)
    signals: ItemSignals = field(default_factory=dict)
    skipped: SkippedItems = field(default_factory=dict)
    answers: ItemAnswers = field(default_factory=dict)
    target_counts: Mapping[str, int] = field(default_factory=dict)
    gold_shares: Mapping[str, float] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    unforeseen: bool = False
    stopped: Stopped | None = None
    estimate: float | None = None
    restored: Mapping[str, str] = field(default_factory=dict)
    restart: str | None = None
    reused_items: int = 0
    lost_items: int = 0
    answer_counts: Mapping[str, int] = field(default_factory=dict)
    answer_tokens: Mapping[str, int] = field(default_factory=dict)
    parameters: int = 0
    layers: int = 0
    merge_seconds: float = 0.0
    forward_seconds: float = 0.0
    total_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.failure is not None:
            object.__setattr__(self, "failure", clean_line(self.failure))
        if self.skipped:
            clean = {
                task: {item: clean_line(why) for item, why in items.items()} for task, items in self.skipped.items()
            }
            object.__setattr__(self, "skipped", clean)

    @property
    def total_violation(self) -> float:
        """By how much it is outside the constraints, all together; 0 where it is inside of all."""
        return sum(self.violations.values())

    @property
    def item_count(self) -> int:
        """How many items it is of."""
        return sum(map(len, self.scores.values())) + sum(map(len, self.skipped.values()))

    @property
    def asked_items(self) -> set[tuple[str, int]]:
        """Task and item of each that it was asked on: scored or left out."""
        found = (self.scores, self.skipped)
        return {(name, item) for part in found for name, items in part.items() for item in items}

    @property
    def new_items(self) -> int:
        """How many items were scored for it."""
        return self.item_count - self.reused_items + self.lost_items

    def extended(self, other: Evaluation) -> Self:
        """With what was measured of the same recipe on further items; a failure if either is."""
        seconds = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("merge_seconds", "forward_seconds", "total_seconds")
        }
        if other.failure is not None:
            return replace(self.failed(other.failure), unforeseen=other.unforeseen, **seconds)
        parts: dict[str, Any] = {
            name: {
                task: {**getattr(self, name).get(task, {}), **getattr(other, name).get(task, {})}
                for task in {**getattr(self, name), **getattr(other, name)}
            }
            for name in ("scores", "signals", "skipped", "answers")
        }
        parts |= {name: _sums(getattr(self, name), getattr(other, name)) for name in ("answer_counts", "answer_tokens")}
        parts["restored"] = {**self.restored, **other.restored}
        parts["restart"] = self.restart or other.restart
        sizes = {name: getattr(other, name) or getattr(self, name) for name in ("parameters", "layers")}
        return replace(self, **parts, **sizes, **seconds)

    def completed(self, looked: Evaluation) -> Self:
        """With the items that only an earlier look at the same recipe was on; itself where there are none."""
        missing = len(looked.asked_items - self.asked_items)
        return replace(self.extended(looked), reused_items=self.reused_items + missing) if missing else self

    def restricted(self, items: Mapping[str, Collection[int]]) -> Self:
        """What it says of some of its items alone."""
        parts: dict[str, Any] = {
            name: {
                task: {item: value for item, value in found.items() if item in items.get(task, ())}
                for task, found in getattr(self, name).items()
            }
            for name in ("scores", "signals", "skipped", "answers")
        }
        return replace(self, **parts)

    def failed(self, reason: str) -> Self:
        """The same evaluation as a failure, without what was scored."""
        return replace(
            self,
            scores={},
            signals={},
            skipped={},
            violations={},
            failure=reason,
            reused_items=0,
            lost_items=self.new_items,
        )

    def repeated(self, number: int) -> Self:
        """The same findings for another trial of the same recipe, which cost no time."""
        return replace(
            self,
            number=number,
            reused_items=self.item_count,
            lost_items=0,
            merge_seconds=0.0,
            forward_seconds=0.0,
            total_seconds=0.0,
        )


def _sums(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


@dataclass(frozen=True)
class Trial:
    """One row of the journal.

    Attributes:
        number: its place in the journal.
        kind: why it exists.
        label: a parent's reference, "uniform merge", or "candidate 17".
        batch: of the optimizer, from 0; `OPENING` for what none asked for.
        recipe: what is merged.
        vector: the point of the unit cube; None for references.
        genes: gene name -> value.
        evaluation: what was measured; None while the trial runs.
        task_scores: task name -> score, in each task's own direction; empty for one that was stopped early.
        objective: what chooses the best, from the tasks' metrics; always maximised. Only a complete trial has one, so
            that one outside a constraint can be neither the best nor a parent to beat.
        objective_values: of a Pareto search, one for each objective; empty where there is one.
        fitness: what the optimizer is told: the objective unless a task's `signal` or a constraint says otherwise.
    """

    number: int
    kind: Kind
    label: str
    batch: int
    recipe: Mapping[str, Any]
    vector: tuple[float, ...] | None = None
    genes: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    task_scores: Mapping[str, float] = field(default_factory=dict)
    objective: float | None = None
    objective_values: tuple[float, ...] = ()
    fitness: Fitness | None = None

    @property
    def state(self) -> State:
        """How far it has come, which its evaluation says."""
        if self.evaluation is None:
            return State.RUNNING
        if self.evaluation.failure is not None:
            return State.FAILED
        if self.evaluation.stopped is not None:
            return State.STOPPED
        return State.INFEASIBLE if self.evaluation.violations else State.COMPLETE

    @property
    def result(self) -> Result:
        """What the optimizer is told."""
        below = self.evaluation is not None and self.evaluation.stopped == Stopped.BELOW
        return Censored(self.fitness) if below and self.fitness is not None else self.fitness

    @property
    def measured(self) -> Evaluation:
        """Its evaluation; one with nothing in it while the trial runs."""
        return self.evaluation or Evaluation(self.number)

    def outline(self) -> Self:
        """The same without its recipe and what single items came to: enough to count and rank it, and small."""
        if self.evaluation is None:
            return replace(self, recipe={}, vector=None, genes={})
        scores: ItemScores = {task: {} for task in self.evaluation.scores}
        evaluation = replace(self.evaluation, scores=scores, signals={}, skipped={}, answers={})
        return replace(self, recipe={}, vector=None, genes={}, evaluation=evaluation)

    @property
    def is_reference(self) -> bool:
        """True for the parents and the uniform merge."""
        return self.kind is not Kind.CANDIDATE

    @property
    def is_asked(self) -> bool:
        """Whether an optimizer asked for it."""
        return self.batch != OPENING


def candidates_done(trials: Iterable[Trial]) -> int:
    """How many candidates are scored, or failed."""
    return sum(trial.kind is Kind.CANDIDATE and trial.state is not State.RUNNING for trial in trials)


class _Ranked(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def objective(self) -> float | None: ...


Ranked = TypeVar("Ranked", bound=_Ranked)


def best_of(trials: Iterable[Ranked | None]) -> Ranked | None:
    """The complete trial with the highest objective; the earliest of equals."""
    complete = (trial for trial in trials if trial is not None and trial.objective is not None)
    return max(complete, key=lambda trial: (trial.objective, -trial.number), default=None)
