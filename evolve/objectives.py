"""What a search maximises, from its configuration, its tasks and, where they set the scale, its parents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.config import SearchConfig
from evolve.trial import Evaluation, ItemScores, ItemSignals
from tasks import Objective, ObjectiveTerm, Scorer, ScoringError, guided_score


class ObjectiveError(RuntimeError):
    """The parents do not say what is 0 and what is 1."""


class Judge:
    """Turns item scores into task scores and these into objectives, the same way for every trial.

    Args:
        scorers: the tasks.
        config: how they count.
        base_model: the parent that is 0 where parents set the scale; None: the worst.
    """

    def __init__(self, scorers: Sequence[Scorer], config: SearchConfig, base_model: str | None) -> None:
        self._scorers = scorers
        self._signals = {task.label: task.signal for task in config.tasks}
        self._base_model = base_model
        self.is_normalised = config.normalize == "parents"
        self.objective = objective_of(scorers, config)
        self._groups = config.objectives
        self._told = self.objective  # of what the optimizer is told; its scales are those of the signals

    def __call__(self, scores: ItemScores) -> tuple[dict[str, float], float]:
        """Item scores -> score per task, and the objective, which is maximised.

        Raises:
            ScoringError: a task's items make no score, or the scores no finite objective.
        """
        task_scores = self._task_scores(scores)
        objective = self.objective.value(task_scores)
        if not math.isfinite(objective):
            raise ScoringError(f"the objective is {objective}, from {task_scores}")
        return task_scores, objective

    @property
    def names(self) -> tuple[str, ...]:
        """Of the objectives that are kept apart; empty where there is one."""
        return tuple(" + ".join(group) for group in self._groups)

    def keep_apart(self, task_scores: Mapping[str, float]) -> tuple[float, ...]:
        """The objectives of a Pareto search; empty where there is one."""
        return self._apart(self.objective, task_scores)

    def guide(self, task_scores: Mapping[str, float], signals: ItemSignals) -> float | tuple[float, ...]:
        """What the optimizer is told: the objectives, with each task's `signal` in the place of its score."""
        told = self._told_scores(task_scores, signals)
        return self._apart(self._told, told) or self._told.value(told)

    def _apart(self, objective: Objective, scores: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(objective.of(group).value(scores) for group in self._groups)

    def calibrate(self, parents: Mapping[str, Evaluation]) -> None:
        """Takes the scale of every task from what the parents scored on the search items.

        Args:
            parents: label -> evaluation, of all parents; those that failed are left out.

        Raises:
            ObjectiveError: the base model, or every other parent, has no score.
        """
        scores: dict[str, dict[str, float]] = {}
        told: dict[str, dict[str, float]] = {}
        failures: dict[str, str] = {}
        for label, evaluation in parents.items():
            try:
                if evaluation.scores is None:
                    raise ScoringError(str(evaluation.failure))
                task_scores = self._task_scores(evaluation.scores)
                told[label] = self._told_scores(task_scores, evaluation.signals)
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
        self.objective = _scaled(self.objective, scores, base)
        self._told = _scaled(self._told, told, base)

    def _task_scores(self, scores: ItemScores) -> dict[str, float]:
        return {scorer.name: scorer.aggregate(scores[scorer.name]).value for scorer in self._scorers}

    def _told_scores(self, task_scores: Mapping[str, float], signals: ItemSignals) -> dict[str, float]:
        return {
            name: guided_score(score, signals.get(name, {}), self._signals[name], self.objective.terms[name].direction)
            for name, score in task_scores.items()
        }


def objective_of(scorers: Sequence[Scorer], config: SearchConfig | None = None) -> Objective:
    """What the tasks' scores become; without a configuration, their plain mean. Scales come from the parents."""
    weights = {task.label: task.weight for task in config.tasks} if config is not None else {}
    terms = {scorer.name: ObjectiveTerm(weights.get(scorer.name, 1.0), scorer.direction) for scorer in scorers}
    return Objective(terms, "weighted_sum" if config is None else config.objective)


def objective_facts(objective: Objective) -> dict[str, Any]:
    """The objective as data: its kind, and what is 0 and 1 of each task in its own unit and direction."""
    signs = {name: 1.0 if term.direction == "maximize" else -1.0 for name, term in objective.terms.items()}
    return {
        "kind": objective.kind,
        "weights": {name: term.weight for name, term in objective.terms.items()},
        "scales": {
            name: {"0": signs[name] * scale.zero, "1": signs[name] * scale.one}
            for name, scale in objective.scales.items()
        },
    }


def _scaled(objective: Objective, scores: Mapping[str, Mapping[str, float]], base: str | None) -> Objective:
    others = [found for label, found in scores.items() if label != base]
    return objective.normalised(None if base is None else scores[base], others)
