"""What a search maximises, from its configuration, its tasks and, where they set the scale, its parents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evolve.config.schema import SearchConfig
from evolve.scoring import Objective, ObjectiveCall, ObjectiveTerm, Scorer, ScoringError, rank_value, score_with_signal
from evolve.search_loop.item_fitness import ItemFitness
from evolve.trials.costs import Cost, Costs, CostTerms
from evolve.trials.trial import Evaluation, Fitness, ItemScores, ItemSignals

_DRAWS = 256  # of what scores may be
_SLOPE_STEP = 1e-3  # of a difference


class ObjectiveError(RuntimeError):
    """The parents do not say what is 0 and what is 1, or what a cost is measured by."""


class ObjectiveFunction:
    """From what was measured to what is maximised, the same way for every trial.

    Item scores become task scores; these and the costs become the objective, which chooses the best, the objective
    values of a Pareto search, and the fitness, which is what the optimizer is told.

    Attributes:
        scalarization: how task scores become one objective.
        cost_terms: what costs take from it.
        needs_parents: whether the parents' scores must be known first.

    Args:
        scorers: the tasks.
        config: how they count.
        base_model: the parent that is 0 where parents set the scale; None: the worst.
        function: the user's own objective, where `config` names one.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        config: SearchConfig,
        base_model: str | None,
        function: ObjectiveCall | None = None,
    ) -> None:
        self._scorers = scorers
        self._signals = {task.label: task.signal for task in config.tasks}
        self._base_model = base_model
        self._groups = config.objectives
        self._normalizes = config.normalize == "parents"
        self.cost_terms = CostTerms(config.cost_weights)
        self.needs_parents = self._normalizes or bool(self.cost_terms.weights)
        self.scalarization = objective_of(scorers, config, function)
        self._fitness_scalarization = self.scalarization  # its scales are those of the signals

    @property
    def objective_names(self) -> tuple[str, ...]:
        """Of a Pareto search; empty where there is one objective."""
        return tuple(" + ".join(group) for group in self._groups)

    def task_scores(self, scores: ItemScores) -> dict[str, float]:
        """The score of every task, in its own direction.

        Raises:
            ScoringError: a task's items make no score.
        """
        return {scorer.name: scorer.aggregate(scores[scorer.name]).value for scorer in self._scorers}

    def objective(self, task_scores: Mapping[str, float], costs: Costs) -> float:
        """The one number that chooses the best; larger is better.

        Raises:
            ScoringError: it is not finite.
        """
        objective = self.scalarization.value(task_scores) - self.cost_terms.penalty(costs)
        if not math.isfinite(objective):
            raise ScoringError(f"the objective is {objective}, from {dict(task_scores)}")
        return objective

    def __call__(self, evaluation: Evaluation) -> float:
        """The objective of what was measured, whichever items it is of.

        Raises:
            ScoringError: a task's items make no score, or the scores no finite objective.
        """
        return self.objective(self.task_scores(evaluation.scores), self.cost_terms.measured(evaluation))

    def of_feasible(self, evaluation: Evaluation) -> float | None:
        """The objective of an evaluation; None where it failed, is outside a constraint, or makes no objective."""
        if evaluation.failure is not None or evaluation.violations:
            return None
        try:
            return self(evaluation)
        except ScoringError:
            return None

    def slopes(self, scores: ItemScores) -> dict[str, float]:
        """How much the objective gains from each task's score, at what some items scored.

        The mean over what the scores may be, so far as the items tell (normal, with their standard errors): of the
        worst task it is the probability that it is the worst, where a slope at one point would forget all others.

        Returns:
            Task name -> mean derivative by the score in its own unit, at least 0, adding up to 1.
        """
        found = {scorer.name: scorer.aggregate(scores[scorer.name]) for scorer in self._scorers}
        generator = np.random.default_rng(0)
        drawn = {
            name: score.value + (score.stderr or 0.0) * generator.standard_normal(_DRAWS)
            for name, score in found.items()
        }
        slopes = {}
        for name, scorer in zip(found, self._scorers, strict=True):
            step = _SLOPE_STEP * (1.0 if scorer.direction == "maximize" else -1.0)
            higher = self.scalarization.values({**drawn, name: drawn[name] + step})
            lower = self.scalarization.values({**drawn, name: drawn[name] - step})
            gains = higher - lower
            told = gains[np.isfinite(gains)]  # a function of the user's may have no number for a draw
            slopes[name] = max(0.0, float(told.mean())) if told.size else 0.0
        total = sum(slopes.values())
        return {name: slope / total if total > 0 else 1 / len(slopes) for name, slope in slopes.items()}

    def is_highest(self, scores: ItemScores, seen: Sequence[ItemScores]) -> bool:
        """Whether every item is right, so that no score can be higher: 1, where none that was seen is outside [0, 1].

        A cost always leaves something to gain, and of a function of the user's nobody knows.
        """
        if self.cost_terms.weights or self.scalarization.function is not None or self._groups:
            return False
        values = [value for one in seen for task in one.values() for value in task.values()]
        return (
            all(scorer.direction == "maximize" and scores.get(scorer.name) for scorer in self._scorers)
            and all(isinstance(value, int | float) and 0 <= value <= 1 for value in values)
            and all(value == 1 for task in scores.values() for value in task.values())
        )

    def objective_values(self, task_scores: Mapping[str, float], costs: Costs) -> tuple[float, ...]:
        """The objectives of a Pareto search, larger is better, a cost with its sign turned; empty where one is."""
        return self._values(self.scalarization, task_scores, costs)

    def fitness(self, task_scores: Mapping[str, float], evaluation: Evaluation) -> Fitness:
        """What the optimizer is told: the objective or objective values, of the signals where tasks ask for them.

        Outside a constraint it is below all that are feasible, in every objective; the further outside the lower.

        Raises:
            ScoringError: a signal or a cost is asked for and there is none.
        """
        signalled = self._signalled(task_scores, evaluation.signals)
        costs = self.cost_terms.measured(evaluation)
        if evaluation.violations:
            low = rank_value(evaluation.total_violation)
            return (low,) * len(self._groups) or low
        values = self._values(self._fitness_scalarization, signalled, costs)
        return values or self._fitness_scalarization.value(signalled) - self.cost_terms.penalty(costs)

    def item_fitness(self, items: Mapping[str, tuple[int, ...]]) -> ItemFitness:
        """The same fitness item by item, of a weighted sum of tasks whose scores are means of their items."""
        return ItemFitness.of(self._fitness_scalarization, self._signals, items)

    def calibrate(self, parents: Mapping[str, Evaluation]) -> None:
        """Take the scales of tasks, where they are theirs, and of costs from the parents, on the search items.

        Args:
            parents: label -> evaluation, of all parents; those that failed are left out.

        Raises:
            ObjectiveError: the base model, or every other parent, has no score.
        """
        if self._normalizes:
            self._take_scales(parents)
        if self.cost_terms.weights:
            self._take_costs(parents)

    def _take_scales(self, parents: Mapping[str, Evaluation]) -> None:
        scores: dict[str, dict[str, float]] = {}
        signalled: dict[str, dict[str, float]] = {}
        failures: dict[str, str] = {}
        for label, evaluation in parents.items():
            try:
                if evaluation.failure is not None:
                    raise ScoringError(evaluation.failure)
                task_scores = self.task_scores(evaluation.scores)
                signalled[label] = self._signalled(task_scores, evaluation.signals)
                scores[label] = task_scores
            except ScoringError as error:
                failures[label] = str(error)
        base = self._base_model
        if base in failures or not scores.keys() - {base}:
            missing = base if base in failures else next(iter(failures), "there is none")
            raise ObjectiveError(
                f"normalize: parents: needs the scores of the base model and of another parent; {missing} could not be "
                f"scored: {failures.get(str(missing), 'not a parent')}"
            )
        self.scalarization = _scaled(self.scalarization, scores, base)
        self._fitness_scalarization = _scaled(self._fitness_scalarization, signalled, base)

    def _take_costs(self, parents: Mapping[str, Evaluation]) -> None:
        """The best parent's, by the tasks alone; the earliest of equals."""
        found: dict[str, float] = {}
        failure = "there is none"
        for label, evaluation in parents.items():
            try:
                if evaluation.failure is not None:
                    raise ScoringError(evaluation.failure)
                found[label] = self.scalarization.value(self.task_scores(evaluation.scores))
            except ScoringError as error:
                failure = f"{label} could not be scored: {error}"
        if not found:
            raise ObjectiveError(f"cost: needs the scores of a parent; {failure}")
        best = max(found, key=lambda label: found[label])
        self.cost_terms = replace(self.cost_terms, references=self.cost_terms.measured(parents[best]))

    def _values(self, scalarization: Objective, scores: Mapping[str, float], costs: Costs) -> tuple[float, ...]:
        return tuple(
            scalarization.of(group).value(scores) if costs.keys().isdisjoint(group) else -costs[Cost(group[0])]
            for group in self._groups
        )

    def _signalled(self, task_scores: Mapping[str, float], signals: ItemSignals) -> dict[str, float]:
        """Task scores with each task's `signal` in the place of its metric."""
        terms = self.scalarization.terms
        return {
            name: score_with_signal(score, signals.get(name, {}), self._signals[name], terms[name].direction)
            for name, score in task_scores.items()
        }


def objective_of(
    scorers: Sequence[Scorer], config: SearchConfig | None = None, function: ObjectiveCall | None = None
) -> Objective:
    """What the tasks' scores become; without a configuration, their plain mean. Scales come from the parents."""
    weights = {task.label: task.weight for task in config.tasks} if config is not None else {}
    terms = {scorer.name: ObjectiveTerm(weights.get(scorer.name, 1.0), scorer.direction) for scorer in scorers}
    return Objective(terms, "weighted_sum" if config is None else config.objective, function=function)


def objective_facts(objective: Objective, cost_terms: CostTerms) -> dict[str, Any]:
    """The objective as data: its kind, what is 0 and 1 of each task in its own unit and direction, and the costs."""
    signs = {name: 1.0 if term.direction == "maximize" else -1.0 for name, term in objective.terms.items()}
    return {
        "kind": objective.kind,
        "weights": {name: term.weight for name, term in objective.terms.items()},
        "scales": {
            name: {"0": signs[name] * scale.zero, "1": signs[name] * scale.one}
            for name, scale in objective.scales.items()
        },
        "costs": {
            cost: {"weight": weight, "best_parent": cost_terms.references.get(cost)}
            for cost, weight in cost_terms.weights.items()
        },
    }


def _scaled(objective: Objective, scores: Mapping[str, Mapping[str, float]], base: str | None) -> Objective:
    others = [found for label, found in scores.items() if label != base]
    return objective.normalised(None if base is None else scores[base], others)
