"""The finalists' second exam, on items that no candidate was selected on."""

from __future__ import annotations

import sys

from evolve.evaluator import Evaluator, Request
from evolve.events import FinalistScored
from evolve.journal import from_json, to_json
from evolve.pareto import pareto_front
from evolve.prepare import Prepared
from evolve.search import Search, SearchError
from evolve.trial import ItemScores, Kind, State, Trial, best_of


def validate(search: Search, prepared: Prepared, evaluator: Evaluator) -> tuple[Trial, dict[int, ItemScores]]:
    """Scores the best candidates and every reference on the held-out items.

    Results are kept in the journal, so that an interrupted validation goes on where it was.

    Returns:
        The candidate with the highest held-out objective (without held-out items, the highest search objective), and
        the held-out scores: trial number -> task -> item -> score. A finalist that breaks a constraint on the held-out
        items is chosen only if all do.
    """
    best = best_of([trial for trial in search.trials if trial.kind is Kind.CANDIDATE])
    if best is None:
        raise SearchError("no candidate could be scored")
    items = {name: split.held_out for name, split in prepared.splits.items()}
    finalists = _finalists(search.trials, prepared.config.validation.finalists)
    if not finalists or not all(items.values()):
        return best, {}
    entrants = [
        trial for trial in search.trials if trial.is_reference and trial.state in (State.COMPLETE, State.INFEASIBLE)
    ]
    entrants += finalists
    scores: dict[int, ItemScores] = {}
    failures: list[str] = []
    for trial in entrants:
        kept = search.journal.noted(f"held_out:{trial.number}")
        if kept is not None:
            scores[trial.number] = from_json(kept)
    missing = [trial for trial in entrants if trial.number not in scores]
    for evaluation in evaluator.evaluate(
        Request(trial.number, trial.recipe, items) for trial in missing if not search.stop.is_set()
    ):
        if evaluation.scores is None:  # it could be scored before; a finalist that now fails cannot win
            failures.append(f"{search.trials[evaluation.number].label}: {evaluation.failure}")
            continue
        scores[evaluation.number] = evaluation.scores
        search.journal.note(f"held_out:{evaluation.number}", to_json(evaluation.scores))
        if evaluation.violations:
            search.journal.note(f"held_out_violations:{evaluation.number}", dict(evaluation.violations))
        held_out = search.judge(evaluation.scores)[1]
        search.watch(FinalistScored(search.trials[evaluation.number], held_out, done=len(scores), total=len(entrants)))
    if failures:
        search.journal.note("held_out_failures", failures)
        print(f"warning: not scored on the held-out items: {'; '.join(failures)}", file=sys.stderr)
    judged = [
        (-_violation(search, trial), search.judge(scores[trial.number])[1], -trial.number)
        for trial in finalists
        if trial.number in scores
    ]
    if not judged:
        return best, scores
    violation, _, number = max(judged)
    if violation:
        print("warning: every finalist breaks a constraint on the held-out items", file=sys.stderr)
    return search.trials[-number], scores


def _violation(search: Search, trial: Trial) -> float:
    """By how much a finalist is outside the constraints on the held-out items, all together."""
    violations: dict[str, float] = search.journal.noted(f"held_out_violations:{trial.number}", {})
    return sum(violations.values())


def _finalists(trials: list[Trial], count: int) -> list[Trial]:
    """The best candidates by search objective, no two with the same recipe."""
    ranked = sorted(
        (trial for trial in trials if trial.kind is Kind.CANDIDATE and trial.objective is not None),
        key=lambda trial: (-(trial.objective or 0.0), trial.number),
    )
    if any(trial.objectives for trial in ranked):  # what is chosen is of the front
        front = {trial.number for trial in pareto_front(ranked)}
        ranked = [trial for trial in ranked if trial.number in front]
    chosen: list[Trial] = []
    for trial in ranked:
        if len(chosen) < count and all(trial.recipe != other.recipe for other in chosen):
            chosen.append(trial)
    return chosen
