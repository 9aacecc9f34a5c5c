"""What a model costs whoever runs it, beside what it scores, and what that takes from the objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean

from evolve.scoring import ScoringError
from evolve.trials.trial import Evaluation


class Cost(StrEnum):
    """A cost; the values are those of search.yml. Lower is better."""

    ANSWER_TOKENS = "answer_tokens"
    PARAMETERS = "parameters"
    LAYERS = "layers"


Costs = Mapping[Cost, float]
"""Cost -> what a model costs, each in its own unit."""


@dataclass(frozen=True)
class CostTerms:
    """The costs that a search measures, and how they count.

    Attributes:
        weights: of every cost that is measured; 0 where it is only looked at.
        references: what the best parent costs, once that is known.
    """

    weights: Mapping[Cost, float] = field(default_factory=dict)
    references: Costs = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether any of them takes something from the objective."""
        return any(self.weights.values())

    def measured(self, evaluation: Evaluation) -> dict[Cost, float]:
        """What the costs came to.

        Raises:
            ScoringError: the model wrote no answer, and their length is asked for.
        """
        return {cost: _measured(cost, evaluation) for cost in self.weights}

    def relative(self, cost: Cost, value: float) -> float:
        """By how much a cost is above the best parent's, as a share of that: -0.5 is half of it, 0 as much."""
        reference = self.references[cost]
        return value / reference - 1.0 if reference > 0 else value

    def penalty(self, costs: Costs) -> float:
        """What the costs take from the objective: the sum of weight * `relative`.

        A model that costs as much as the best parent loses nothing, a cheaper one gains.
        """
        return sum(weight * self.relative(cost, costs[cost]) for cost, weight in self.weights.items() if weight)

    def __str__(self) -> str:
        """ "0.1 x (answer_tokens / 24.1 - 1)", of those that count."""
        return " - ".join(
            f"{weight:g} x ({cost} / {round(self.references[cost], 2):.12g} - 1)"
            for cost, weight in self.weights.items()
            if weight and self.references.get(cost)
        )


def _measured(cost: Cost, evaluation: Evaluation) -> float:
    match cost:
        case Cost.PARAMETERS:
            return float(evaluation.parameters)
        case Cost.LAYERS:
            return float(evaluation.layers)
        case Cost.ANSWER_TOKENS:
            # Task by task, so that it does not depend on how many items of each a model was asked.
            means = [
                evaluation.answer_tokens[task] / count for task, count in evaluation.answer_counts.items() if count
            ]
            if not means:
                raise ScoringError("cost: answer_tokens: no task had the model write an answer. Remove it")
            return fmean(means)
