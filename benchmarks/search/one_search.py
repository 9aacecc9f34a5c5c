"""A search from its opening to its end, without the second exam of its finalists and all that a run writes."""

from __future__ import annotations

from threading import Event

from evolve.evaluation.evaluator import Evaluator
from evolve.preflight.prepare import Prepared
from evolve.search_loop.conduct import conduct
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.trials.journal import Journal
from evolve.trials.trial import Kind, Trial, best_of


def best_found(prepared: Prepared, journal: Journal, evaluator: Evaluator) -> Trial:
    """What a search thinks best by its own items; one that is in the journal already is not done again.

    Raises:
        RuntimeError: no candidate could be scored.
    """
    search = Search(
        journal=journal,
        space=prepared.space,
        evaluator=evaluator,
        objective_function=ObjectiveFunction(prepared.scorers, prepared.config, prepared.space.base_model),
        items={name: split.search for name, split in prepared.splits.items()},
        budget=prepared.config.budget,
        watch=lambda event: None,
        stop=Event(),
    )
    conduct(search, prepared)
    best = best_of([trial for trial in search.trials if trial.kind is Kind.CANDIDATE])
    if best is None:
        raise RuntimeError("no candidate could be scored")
    return best
