"""A search from its first trial to its last: opening, choices, then the optimizer, with races where there can be."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evolve.config.strategy import DEFAULT_PLATEAU, BudgetConfig
from evolve.preflight.prepare import Prepared
from evolve.search_loop.choices import score_choices
from evolve.search_loop.expected_spending import items_of_one
from evolve.search_loop.loop import Search
from evolve.search_loop.opening import open_search
from evolve.search_loop.races import Races
from evolve.search_loop.references import recipes_of_references, reference_trials
from evolve.search_loop.start import candidates_within, make_optimizer, start_point
from evolve.trials.events import StopReason
from evolve.trials.spending import Purpose, of_the_search
from evolve.trials.trial import Trial, best_of

LEAST_PATIENCE = 4  # candidates


def conduct(search: Search, prepared: Prepared) -> StopReason:
    """Score references and candidates until a budget is spent, or more is not worth it.

    Returns:
        Why it stopped.

    Raises:
        SearchError: no parent, or none of the first candidates, can be scored.
        ConfigError: an option that the optimizer does not take.
    """
    references = reference_trials(prepared.space, prepared.template, prepared.same_depth)
    opening = open_search(search, prepared, references)
    # Not before: a run that goes on opens with its references scored, and must do what it did without.
    for number, recipe in recipes_of_references(prepared.space, prepared.template, references).items():
        search.ledger.equate(recipe, references[number])
    reason = opening.reason or score_choices(search, start_point(prepared, _scored(search))) or solved(search)
    if reason is not None:
        search.note_seconds()
        search.watch(search.stopped(reason))
        return reason
    search.race_with(_races(search, prepared, search.trials[: len(references)]))
    scored = _scored(search)
    optimizer = make_optimizer(prepared, scored, opening.sigmas, _candidates(search, prepared))
    search.journal.note("optimizer", optimizer.label)
    if opening.follows_all and prepared.config.optimizer.name == "auto" and not search.budget.is_bounded:
        search.budget = _short_budget(search, prepared)
    return search.run(optimizer, prepared.config.optimizer.mode == "steady_state")


def _scored(search: Search) -> list[Trial]:
    """References, and candidates that no optimizer asked for."""
    return [trial for trial in search.trials if not trial.is_asked]


def solved(search: Search) -> StopReason | None:
    """An optimizer that is to propose no certain number of candidates need not begin where every item is right.

    One that has begun goes on, or a run that was interrupted would end where one that was not goes on.
    """
    best = best_of(search.ledger.opening)
    if best is None or search.budget.evaluations is not None or search.ledger.asked_count:
        return None
    seen = [trial.measured.scores for trial in search.trials if trial.objective is not None]
    return StopReason.SOLVED if search.objective_function.is_highest(best.measured.scores, seen) else None


def _candidates(search: Search, prepared: Prepared) -> int | None:
    """How many the optimizer will be asked for, as it was told when the run was begun: it is what `auto` chose by."""
    journal = search.journal
    found = candidates_within(search.budget, items_of_one(prepared), of_the_search(search.spent()))
    told: list[int | None] = journal.noted("told_candidates", [found])
    journal.note("told_candidates", told)
    return told[0]


def _short_budget(search: Search, prepared: Prepared) -> BudgetConfig:
    """No more patience than a gradient is worth that left no gene out: as many items as it took, without a new best."""
    spent = search.spent()
    worth = (spent[Purpose.STEPS] + spent[Purpose.LOOKS]) // items_of_one(prepared)
    plateau = search.journal.noted("plateau", min(max(worth, LEAST_PATIENCE), DEFAULT_PLATEAU))
    search.journal.note("plateau", plateau)
    if plateau < DEFAULT_PLATEAU:
        message = f"{plateau} candidates without a new best, which take as many items as its steps"
        print(f"gradient: it followed every gene, so the search stops after {message}", file=sys.stderr)
    return search.budget.model_copy(update={"plateau": plateau})


def _races(search: Search, prepared: Prepared, references: Sequence[Trial]) -> Races | None:
    """None where no races are asked for, or every candidate needs all items since scores are not what they judge by."""
    racing = prepared.config.racing
    if racing is None:
        return None
    races = Races(
        journal=search.journal,
        items=search.items,
        make_fitness=lambda: search.objective_function.item_fitness(search.items),
        confidence=racing.confidence,
        tolerance=None if racing.tolerance == "resolution" else racing.tolerance,
        seed=prepared.config.seed,
    )
    if obstacle := races.obstacle(references):
        print(f"warning: racing is off: {obstacle}", file=sys.stderr)
        return None
    return races
