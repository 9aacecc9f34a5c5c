"""From evaluations to trials with scores: written to the journal, and told to watchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from evolve.config.strategy import BudgetConfig
from evolve.scoring import ScoringError
from evolve.search_loop.ending import Clock
from evolve.search_loop.ledger import Ledger
from evolve.search_loop.looks import Looks
from evolve.search_loop.objective import ObjectiveFunction
from evolve.trials.events import TrialFinished, Watcher
from evolve.trials.trial import Evaluation, Trial


class Recorder:
    """Writes results down, and tells whoever is watching.

    Args:
        ledger: where they are written.
        objective_function: what they are worth.
        looks: that some of the items were scored in.
        clock: of the search.
        budget: of the search.
        watch: is told of every trial.
        item_evaluations: how many the search has taken so far.
    """

    def __init__(
        self,
        ledger: Ledger,
        objective_function: ObjectiveFunction,
        looks: Looks,
        clock: Clock,
        budget: BudgetConfig,
        watch: Watcher,
        item_evaluations: Callable[[], int],
    ) -> None:
        self._ledger, self._objective_function, self._looks = ledger, objective_function, looks
        self._clock, self._budget, self._watch = clock, budget, watch
        self._item_evaluations = item_evaluations
        self._recorded, self._since = 0, 0.0  # in this run, and from when on

    def begin_pace(self) -> None:
        """From now on the time of a trial is that of those to come: what an opening took says nothing of them."""
        self._recorded, self._since = 0, self._clock.seconds_here

    def record(self, evaluation: Evaluation) -> None:
        """What was measured of a trial that is begun."""
        ledger = self._ledger
        trial = ledger.trials[evaluation.number]
        trial = scored(trial, self._looks.completed(trial.recipe, evaluation), self._objective_function)
        ledger.finish(trial)
        self._recorded += 1
        seconds_each = (self._clock.seconds_here - self._since) / self._recorded
        budget = self._budget.evaluations
        left = None if budget is None else budget - ledger.candidates_done
        best = ledger.best
        costs = {} if best is None else self._objective_function.cost_terms.measured(best.measured)
        self._watch(
            TrialFinished(
                trial=trial,
                best=best,
                best_parent=ledger.best_parent,
                uniform=ledger.uniform,
                candidates_done=ledger.candidates_done,
                evaluation_budget=budget,
                seconds_per_evaluation=seconds_each,
                seconds_left=self._clock.seconds_left(left, seconds_each),
                item_evaluations=self._item_evaluations(),
                costs={cost.value: value for cost, value in costs.items()},
            )
        )


def scored(trial: Trial, evaluation: Evaluation, objective_function: ObjectiveFunction) -> Trial:
    """The trial with what was measured, and what the objective function makes of that."""
    if evaluation.failure is not None:
        return replace(trial, evaluation=evaluation)
    if evaluation.stopped is not None:
        return replace(trial, evaluation=evaluation, fitness=evaluation.estimate)
    try:
        task_scores = objective_function.task_scores(evaluation.scores)
        costs = objective_function.cost_terms.measured(evaluation)
        objective = objective_function.objective(task_scores, costs)
        fitness = objective_function.fitness(task_scores, evaluation)
    except ScoringError as error:  # nothing can be ranked by such a score
        return replace(trial, evaluation=evaluation.failed(str(error)))
    found = replace(trial, evaluation=evaluation, task_scores=task_scores, fitness=fitness)
    if evaluation.violations:
        return found
    objective_values = objective_function.objective_values(task_scores, costs)
    return replace(found, objective=objective, objective_values=objective_values)
