"""What a search has found when it ends: as objects, as data for run.json, and as text for the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evolve.preflight.compatibility import benchmark_tests
from evolve.preflight.prepare import Prepared
from evolve.report.block_map import render_blocks
from evolve.report.intervals import TaskColumn
from evolve.report.pareto_table import render_front
from evolve.report.run_record import score_facts
from evolve.report.score_page import render_table
from evolve.report.score_table import ScoreTable, score_table
from evolve.report.short_recipe import NoShortRecipe, ShortRecipe, render_short_recipe
from evolve.report.spending_table import render_spending
from evolve.report.verdict import verdict
from evolve.scoring import Scorer
from evolve.search_loop.environment import machine, versions
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction, objective_facts
from evolve.space.repeat_space import RepeatSpace
from evolve.trials.events import StopReason
from evolve.trials.pareto_front import Front, pareto_front
from evolve.trials.spending import Spending
from evolve.trials.trial import Evaluation, ItemScores, State, Trial, candidates_done


@dataclass(frozen=True)
class Conclusion:
    """What a search has found.

    Attributes:
        best: what it has chosen.
        trials: all of them; references and best with per-item numbers whose mean is the score of each task.
        measured: trial number -> what it scored on the held-out items.
        held_out: trial number -> such numbers of these items.
        table: the scores of references and best.
        front: of a search with several objectives.
        short: the short form of the best recipe, or why there is none; None where nobody looked.
        fingerprint: of the model that was scored.
        spent: item evaluations, by purpose.
        seconds: that the search took.
    """

    best: Trial
    trials: Sequence[Trial]
    measured: Mapping[int, Evaluation]
    held_out: Mapping[int, ItemScores]
    table: ScoreTable
    front: Front | None
    short: ShortRecipe | NoShortRecipe | None
    fingerprint: str
    spent: Spending
    seconds: float


def conclude(
    prepared: Prepared,
    search: Search,
    best: Trial,
    every: Sequence[Trial],
    measured: Mapping[int, Evaluation],
    short: ShortRecipe | NoShortRecipe | None,
) -> Conclusion:
    """Compare the best with what it was to beat.

    Args:
        prepared: the search.
        search: at its end.
        best: what it has chosen.
        every: its trials.
        measured: trial number -> what it scored on the held-out items.
        short: the short form of the best recipe, as far as anybody looked for it.
    """
    function = search.objective_function
    # Of the other trials only the number of items is told, and for a corpus metric contributions take their time.
    trials = [
        replace(trial, evaluation=_contributing(trial.measured, prepared.scorers))
        if trial.is_reference or trial.number == best.number
        else trial
        for trial in every
    ]
    held_out = {number: _contributing(evaluation, prepared.scorers).scores for number, evaluation in measured.items()}
    table = score_table(
        trials,
        held_out,
        _task_columns(prepared),
        best.number,
        objective=function.scalarization,
        cost_terms=function.cost_terms,
        held_out_costs={number: function.cost_terms.measured(evaluation) for number, evaluation in measured.items()},
        seed=prepared.config.seed,
    )
    return Conclusion(
        best=best,
        trials=trials,
        measured=measured,
        held_out=held_out,
        table=table,
        front=_front(every, measured, function, best) if function.objective_names else None,
        short=short,
        fingerprint=search.evaluator.fingerprint(best.recipe),
        spent=search.journal.spent,
        seconds=float(search.journal.noted("search_seconds", 0.0)),
    )


def evidence(prepared: Prepared, search: Search, found: Conclusion, reason: StopReason) -> dict[str, Any]:
    """What run.json says.

    Args:
        prepared: the search.
        search: at its end.
        found: by it.
        reason: why it ended.
    """
    function, config, trials = search.objective_function, prepared.config, found.trials
    return {
        "best": found.best.number,
        "best_label": found.best.label,
        "stopped_by": reason,
        "fingerprint": found.fingerprint,
        "seed": config.seed,
        "optimizer": search.journal.noted("optimizer", config.optimizer.name),
        "candidates": candidates_done(trials),
        "failed": sum(trial.state is State.FAILED for trial in trials),
        "infeasible": sum(trial.state is State.INFEASIBLE for trial in trials),
        "stopped_early": sum(trial.state is State.STOPPED for trial in trials),
        "search_seconds": found.seconds,
        "item_evaluations": {purpose: count for purpose, count in found.spent.items() if count},
        "held_out": {trials[number].label: function(evaluation) for number, evaluation in found.measured.items()},
        "benchmark_tests": benchmark_tests(prepared.scorers),
        "objective": objective_facts(function.scalarization, function.cost_terms),
        "pareto_front": found.front.facts() if found.front is not None else None,
        "scores": score_facts(found.table),
        "verdict": verdict(found.table),
        "machine": machine(),
        "simple": found.short.facts if found.short is not None else None,
        "versions": versions(),
    }


def summary(prepared: Prepared, found: Conclusion) -> str:
    """What the terminal shows: as wide as it is, but no wider than is easily read."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    parts = [render_table(found.table, width)]
    if found.short is not None:
        parts.append(render_short_recipe(found.short, width))
    if isinstance(prepared.space, RepeatSpace):
        parts.append(render_blocks(prepared.space, found.trials, width))
    if found.front is not None:
        parts.append(render_front(found.front, width))
    return "\n".join([*parts, render_spending(found.spent, width)])


def _front(
    trials: Sequence[Trial], held_out: Mapping[int, Evaluation], function: ObjectiveFunction, best: Trial
) -> Front:
    members = pareto_front(trials)
    return Front(
        names=function.objective_names,
        trials=members,
        held_out={
            trial.number: function.objective_values(
                function.task_scores(held_out[trial.number].scores),
                function.cost_terms.measured(held_out[trial.number]),
            )
            for trial in members
            if trial.number in held_out
        },
        chosen=best.number,
    )


def _task_columns(prepared: Prepared) -> list[TaskColumn]:
    """The tasks as the report shows them."""
    weights = {task.label: task.weight for task in prepared.config.tasks}
    return [
        TaskColumn(scorer.name, scorer.metric, scorer.direction, weights[scorer.name]) for scorer in prepared.scorers
    ]


def _contributing(evaluation: Evaluation, scorers: tuple[Scorer, ...]) -> Evaluation:
    """With per-item numbers whose mean is the task's score, for metrics that are no means themselves."""
    scores = evaluation.scores
    found = {scorer.name: scorer.contributions(scores[scorer.name]) for scorer in scorers if scorer.name in scores}
    return replace(evaluation, scores=found)
