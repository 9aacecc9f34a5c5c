"""What a worker is asked: to score a recipe, or to differentiate what its model says by the recipe's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from evolve.scoring.targets import WrittenAnswers
from evolve.trials.trial import Evaluation
from merge_core import ParameterSlot


@dataclass(frozen=True)
class Request:
    """A recipe to score.

    Attributes:
        number: of the trial.
        recipe: what is merged.
        items: task name -> item ids.
        keeps_answers: whether what the model writes, in tokens, is told too.
        time_limit: seconds after which a worker is interrupted, or is taken to hang; None: it may take for ever.
        label: of what is scored, for people.
    """

    number: int
    recipe: Mapping[str, Any]
    items: Mapping[str, tuple[int, ...]]
    keeps_answers: bool = False
    time_limit: float | None = None
    label: str = ""


@dataclass(frozen=True)
class GradientRequest:
    """A recipe whose right answers are to become more probable.

    Attributes:
        number: of the step.
        recipe: what is merged.
        items: task name -> item ids; of tasks whose items have targets.
        weights: task name -> how much the mean over its items counts.
        exponent: of the loss, see `family_loss`.
        written: task name -> item id -> answers that models wrote and that are right, each with its prompt, in tokens.
        gold_counts: task name -> whether the task's own answers are targets where there are written ones.
        slots: of the parameters whose slopes are asked for; None for all. Some take a merge each.
        time_limit: as of a `Request`.
        label: where the way began that it is a step of, for people.
    """

    number: int
    recipe: Mapping[str, Any]
    items: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, float]
    exponent: float
    written: Mapping[str, Mapping[int, WrittenAnswers]] = field(default_factory=dict)
    gold_counts: Mapping[str, bool] = field(default_factory=dict)
    slots: tuple[ParameterSlot, ...] | None = None
    time_limit: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Slopes:
    """The derivative of a loss by the parameters of a recipe; with a `failure` there is none.

    Attributes:
        number: of the step.
        slopes: output tensor and slot of a parameter -> derivative.
        probabilities: task name -> item id -> the probability of being right.
        failure: why there is no gradient.
        unforeseen: as of an `Evaluation`.
        seconds: merging, forward and backward.
    """

    number: int
    slopes: Mapping[tuple[str, ParameterSlot], float] = field(default_factory=dict)
    probabilities: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    failure: str | None = None
    unforeseen: bool = False
    seconds: float = 0.0


Asked = TypeVar("Asked", Request, GradientRequest)
Answered = TypeVar("Answered", Evaluation, Slopes)
