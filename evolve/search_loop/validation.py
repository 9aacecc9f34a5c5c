"""The finalists' second exam, on items that steered no candidate."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evolve.evaluation.request import Request
from evolve.preflight.prepare import Prepared
from evolve.search_loop.ending import SearchError
from evolve.search_loop.loop import Search
from evolve.search_loop.references import reference_points
from evolve.trials.events import FinalistScored
from evolve.trials.pareto_front import pareto_front
from evolve.trials.stage import Stage
from evolve.trials.trial import Evaluation, Kind, State, Trial, best_of


def validate(search: Search, prepared: Prepared) -> tuple[Trial, dict[int, Evaluation]]:
    """Score the best candidates and every reference on the held-out items.

    Results are kept in the journal, so that an interrupted validation goes on where it was.

    Returns:
        Of the finalists and the references in the search space the one with the highest held-out objective (without
        held-out items, the highest search objective), and the held-out evaluations: trial number -> evaluation. One
        that breaks a constraint on the held-out items is chosen only if all do.

    Raises:
        SearchError: no candidate could be scored.
    """
    best = best_so_far(search.trials, prepared)
    if best is None:
        raise SearchError("no candidate could be scored")
    items = {name: split.held_out for name, split in prepared.splits.items()}
    finalists = _finalists(search.trials, prepared.config.validation.finalists)
    if not finalists or not all(items.values()):
        return best, {}
    references = [trial for trial in search.trials if trial.is_reference]
    in_space = _references_in_space(search.trials, prepared)
    entrants = [trial for trial in references if trial.state in (State.COMPLETE, State.INFEASIBLE)] + finalists
    kept = search.journal.kept(Stage.VALIDATION)
    found = {trial.number: kept[trial.number] for trial in entrants if trial.number in kept}
    failures: list[str] = []
    missing = [trial for trial in entrants if trial.number not in found]
    for evaluation in search.evaluator.evaluate(
        Request(trial.number, trial.recipe, items, label=f"{trial.label} on held-out items")
        for trial in missing
        if not search.stop.is_set()
    ):
        trial = search.trials[evaluation.number]
        if evaluation.failure is not None:  # it could be scored before; a finalist that now fails cannot win
            failures.append(f"{trial.label}: {evaluation.failure}")
            continue
        found[trial.number] = evaluation
        search.journal.keep(Stage.VALIDATION, evaluation)
        objective = search.objective_function(evaluation)
        search.watch(FinalistScored(trial, objective, done=len(found), total=len(entrants)))
    if failures:
        search.journal.note("held_out_failures", failures)
        print(f"warning: not scored on the held-out items: {'; '.join(failures)}", file=sys.stderr)
    ranked = [
        (
            -held_out.total_violation,
            search.objective_function(held_out),
            trial.objective or 0.0,  # few items make ties: then the search items decide
            trial.is_reference,  # and then the simpler: a candidate must be better than what anybody has
            -trial.number,
        )
        for trial in [*finalists, *in_space]
        if (held_out := found.get(trial.number)) is not None
    ]
    if not any(trial.number in found for trial in finalists):  # stopped before any was, or all failed
        return best, found
    below, *_, number = max(ranked)
    if below < 0:
        print("warning: every finalist breaks a constraint on the held-out items", file=sys.stderr)
    return search.trials[-number], found


def best_so_far(trials: Sequence[Trial], prepared: Prepared) -> Trial | None:
    """The best of the search space on the search items: a candidate, unless a parent or the uniform merge is better.

    None where no candidate was scored, which is no result.
    """
    candidate = best_of([trial for trial in trials if trial.kind is Kind.CANDIDATE])
    reference = best_of(_references_in_space(trials, prepared))
    if candidate is None or reference is None:
        return candidate
    return reference if (reference.objective or 0.0) >= (candidate.objective or 0.0) else candidate


def _references_in_space(trials: Sequence[Trial], prepared: Prepared) -> list[Trial]:
    """Those that a candidate could have been. None of a Pareto search, whose result is of its front of candidates."""
    if prepared.config.objectives:
        return []
    points = reference_points(prepared.space, prepared.template, trials)
    return [trial for trial in trials if trial.number in points and trial.objective is not None]


def _finalists(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best candidates by search objective, no two with the same recipe."""
    ranked = sorted(
        (trial for trial in trials if trial.kind is Kind.CANDIDATE and trial.objective is not None),
        key=lambda trial: (-(trial.objective or 0.0), trial.number),
    )
    if any(trial.objective_values for trial in ranked):  # what is chosen is of the front
        front = {trial.number for trial in pareto_front(ranked)}
        ranked = [trial for trial in ranked if trial.number in front]
    chosen: list[Trial] = []
    for trial in ranked:
        if len(chosen) < count and all(trial.recipe != other.recipe for other in chosen):
            chosen.append(trial)
    return chosen
