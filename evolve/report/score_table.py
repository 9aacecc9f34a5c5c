"""What a search found, as data: every model's scores with their intervals, and how the best compares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from evolve.report.formatting import single_line
from evolve.report.intervals import Interval, TaskColumn, mean_interval, objective_interval, weighted_sum
from evolve.scoring import Objective, paired_difference
from evolve.trials.costs import Costs, CostTerms
from evolve.trials.trial import ItemScores, Kind, Trial

RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Scores:
    """One model on one set of items."""

    objective: Interval | None = None
    tasks: Mapping[str, Interval] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)  # task -> how many
    costs: Costs = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreRow:
    """A parent, the uniform merge or the best model, on search and on held-out items."""

    number: int
    name: str  # "addition", "uniform", "candidate 17"
    role: str  # "parent", "uniform" or "best"
    search: Scores
    held_out: Scores
    failure: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The best model against one reference."""

    reference: str  # "the best parent (addition)"
    difference: Interval  # of the objectives, best minus reference, paired by item
    items: int  # that both were scored on
    identical: bool  # the same score on every single item


@dataclass(frozen=True)
class ScoreTable:
    """Everything the terminal and the model card say about scores."""

    tasks: Sequence[TaskColumn]
    rows: Sequence[ScoreRow]  # parents, uniform, best
    best: Trial
    comparisons: Sequence[Comparison]  # best parent first, then uniform; without what could not be compared
    compared_on: Literal["held-out", "search"]  # "search" when nothing was held out
    confidence_level: float
    shared_items: int  # held-out items that the search saw too; anything but 0 is a mistake
    objective: Objective  # what the tasks' scores become
    cost_terms: CostTerms  # and what costs take from it

    @property
    def objective_is_task(self) -> bool:
        """True where the objective is the score of the only task, so that one column shows both."""
        only = self.tasks[0] if len(self.tasks) == 1 else None
        as_it_is = not self.objective.scales and not self.cost_terms.counts and self.objective.function is None
        return only is not None and only.direction == "maximize" and as_it_is

    @property
    def best_row(self) -> ScoreRow:
        """The row of the chosen model."""
        return next(row for row in self.rows if row.number == self.best.number)


def score_table(
    trials: Sequence[Trial],
    held_out: Mapping[int, ItemScores],
    tasks: Sequence[TaskColumn],
    chosen: int,
    *,
    objective: Objective | None = None,
    cost_terms: CostTerms | None = None,
    held_out_costs: Mapping[int, Costs] | None = None,
    confidence_level: float = 0.95,
    seed: int = 0,
) -> ScoreTable:
    """Parents, uniform merge and best, with intervals, and the best against the references, item by item.

    The best parent is the one with the highest objective on the held-out items (on the search items when none
    were held out), which is the hardest choice for the best model.

    Args:
        trials: the journal; search scores come from here. Their item scores, and the held-out ones, are
            contributions: numbers whose mean is the task's score (`Scorer.contributions`).
        held_out: trial number -> task -> item -> score, of references and finalists. May be empty.
        tasks: the columns.
        chosen: number of the trial that is saved.
        objective: what the tasks' scores become; None is the weighted mean of the columns.
        cost_terms: what costs take from it; they count as they were measured, without an interval of their own.
        held_out_costs: trial number -> costs on the held-out items.
        confidence_level: coverage of every interval, in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: when no trial has the number `chosen`.
    """
    by_number = {trial.number: trial for trial in trials}
    if chosen not in by_number:
        raise ValueError(f"report: trial {chosen} was chosen, but the journal has {len(trials)} trials without it")
    best = by_number[chosen]
    objective = objective or weighted_sum(tasks)
    cost_terms = cost_terms or CostTerms()
    shown = [trial for trial in trials if trial.is_reference and trial is not best] + [best]
    on_search = {trial.number: _scored_tasks(trial.measured.scores, tasks) for trial in shown}
    on_held_out = {trial.number: _scored_tasks(held_out.get(trial.number, {}), tasks) for trial in shown}
    search_costs = {trial.number: cost_terms.measured(trial.measured) for trial in shown if on_search[trial.number]}
    costs_of = {"search": search_costs, "held-out": held_out_costs or {}}

    def scores_of(trial: Trial, kind: str) -> Scores:
        items = on_search if kind == "search" else on_held_out
        costs = costs_of[kind].get(trial.number, {})
        return _scores(items[trial.number], objective, cost_terms, costs, confidence_level, seed)

    rows = [
        ScoreRow(
            number=trial.number,
            name=trial.label + (" (infeasible)" if trial.measured.violations else ""),
            role="best" if trial is best else trial.kind.value,
            search=scores_of(trial, "search"),
            held_out=scores_of(trial, "held-out"),
            failure=trial.measured.failure,
        )
        for trial in shown
    ]
    compared_on: Literal["held-out", "search"] = "held-out" if on_held_out[chosen] else "search"
    items = on_held_out if compared_on == "held-out" else on_search

    compared = {row.number: row.held_out if compared_on == "held-out" else row.search for row in rows}

    def height(trial: Trial) -> float:
        interval = compared[trial.number].objective
        return -math.inf if interval is None else interval.value

    parents = [trial for trial in shown if trial.kind is Kind.PARENT and trial is not best]
    against = sorted(parents, key=lambda trial: (-height(trial), trial.number))[:1]
    against += [trial for trial in shown if trial.kind is Kind.UNIFORM and trial is not best]
    comparisons = []
    for trial in against:
        parent = f"the best {'other ' if best.kind is Kind.PARENT else ''}parent ({single_line(trial.label)})"
        name = parent if trial.kind is Kind.PARENT else "the uniform merge"
        comparison = _compare(name, items[chosen], items[trial.number], objective, confidence_level, seed)
        if comparison is not None:
            ours, theirs = (costs_of[compared_on].get(number, {}) for number in (chosen, trial.number))
            saved = cost_terms.penalty(theirs) - cost_terms.penalty(ours) if cost_terms.counts else 0.0
            comparisons.append(replace(comparison, difference=comparison.difference.shifted(saved)))
    return ScoreTable(
        tasks=tuple(tasks),
        rows=tuple(rows),
        best=best,
        comparisons=tuple(comparisons),
        compared_on=compared_on,
        confidence_level=confidence_level,
        shared_items=_shared_items(best.measured.scores, held_out.get(chosen, {})),
        objective=objective,
        cost_terms=cost_terms,
    )


def _scored_tasks(scores: ItemScores, tasks: Sequence[TaskColumn]) -> ItemScores:
    return {task.name: scores[task.name] for task in tasks if scores.get(task.name)}


def _compare(
    name: str, ours: ItemScores, theirs: ItemScores, objective: Objective, level: float, seed: int
) -> Comparison | None:
    """None when some task has no item that both were scored on; unbounded when some task has only one."""
    common = {task: ours.get(task, {}).keys() & theirs.get(task, {}).keys() for task in objective.terms}
    if not common or not all(common.values()):
        return None
    found = paired_difference(ours, theirs, objective, confidence=level, resamples=RESAMPLES, seed=seed)
    enough = all(len(items) > 1 for items in common.values())
    return Comparison(
        reference=name,
        difference=Interval(found.difference, *((found.low, found.high) if enough else ())),
        items=found.items,
        identical=all(ours[task][item] == theirs[task][item] for task in common for item in common[task]),
    )


def _scores(
    scores: ItemScores, objective: Objective, cost_terms: CostTerms, costs: Costs, level: float, seed: int
) -> Scores:
    interval = objective_interval(scores, objective, level, seed)
    if interval is not None and costs:
        interval = interval.shifted(-cost_terms.penalty(costs))
    return Scores(
        objective=interval,
        tasks={name: mean_interval(items, level) for name, items in scores.items()},
        items={name: len(items) for name, items in scores.items()},
        costs=costs,
    )


def _shared_items(search: ItemScores, held_out: ItemScores) -> int:
    return sum(len(search.get(name, {}).keys() & items.keys()) for name, items in held_out.items())
