"""What a search leaves: the best recipe and its model, card, table of trials, evidence, the Pareto front."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evolve.preflight.compatibility import benchmark_tests
from evolve.preflight.prepare import Prepared
from evolve.problems import error_lines
from evolve.report.model_card import model_card
from evolve.report.run_record import RunRecord
from evolve.report.short_recipe import NoShortRecipe, ShortRecipe
from evolve.report.trials_csv import trials_csv
from evolve.search_loop.conclusion import conclude, evidence, summary
from evolve.search_loop.ending import SearchError
from evolve.search_loop.environment import versions
from evolve.search_loop.loop import Search
from evolve.search_loop.validation import validate
from evolve.trials.costs import CostTerms
from evolve.trials.events import RunFinished, StopReason
from evolve.trials.journal import Journal
from evolve.trials.pareto_front import Front
from evolve.trials.run_directory import RunDirectory, dump_recipe
from evolve.trials.trial import Evaluation, Trial, candidates_done
from merge_core import documents_of, merge
from merge_core.atomic_output import write_atomically
from merge_core.checkpoint.card_metadata import stated_licences
from merge_core.output_directory import move_into_place, new_directory
from merge_core.ownership import list_files, remove_made
from merge_core.recipe.documents import written_documents
from merge_core.recipe.user_methods import copy_methods

Shorten = Callable[[Trial, Evaluation | None], ShortRecipe | NoShortRecipe | None]
"""The best trial, and what it scored on the held-out items → a shorter form of its recipe; None: nobody looked."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    reason: StopReason
    best: Trial | None
    directory: RunDirectory

    @property
    def interrupted(self) -> bool:
        """Stopped from outside, with the search unfinished."""
        return self.reason is StopReason.INTERRUPTED

    @property
    def paused(self) -> bool:
        """Stopped where it was to stop, with the search unfinished."""
        return self.reason is StopReason.PAUSED


def finish(
    prepared: Prepared, directory: RunDirectory, search: Search, reason: StopReason, shorten: Shorten | None = None
) -> Outcome:
    """Validate, write, and prove that what is written is what was scored.

    Args:
        prepared: the search.
        directory: where it is written.
        search: at its end.
        reason: why it ended.
        shorten: looks for a shorter form of the best recipe; None: nobody does.
    """
    best, held_out = validate(search, prepared)
    cost_terms = search.objective_function.cost_terms
    if search.stop.is_set():
        write_so_far(directory, search.journal, best, cost_terms)
        return Outcome(StopReason.INTERRUPTED, best, directory)
    every = list(search.trials)  # of many, most are read from the journal at each look
    # Of an earlier end, which other finalists decided.
    if directory.read_summary(candidates_done(every)).get("best") != best.number:
        directory.goes_on()
    _write_trials(directory, every, best, cost_terms)
    short = None if shorten is None else shorten(best, held_out.get(best.number))
    if search.stop.is_set():
        write_run_report(directory, search.journal)
        return Outcome(StopReason.INTERRUPTED, best, directory)
    found = conclude(prepared, search, best, every, held_out, short)
    _write_front(directory, found.front)
    history = _draw_history(directory, search.journal)
    card = model_card(
        found.table,
        found.trials,
        found.held_out,
        seed=prepared.config.seed,
        versions=versions(),
        wall_seconds=found.seconds,
        title=directory.path.name,
        benchmark_tests=benchmark_tests(prepared.scorers),
        front=found.front,
        spending=found.spent,
        short=short if isinstance(short, ShortRecipe) else None,
        relative_to=prepared.directory,
        licences=stated_licences(prepared.checkpoints),
        fingerprint=found.fingerprint,
        picture=None if history is None else directory.history.name,
    )
    beside = {directory.card.name: card} | ({} if history is None else {directory.history.name: history})
    _save_model(prepared, directory, best, found.fingerprint, beside)
    for name, content in beside.items():
        directory.write(directory.path / name, content)
    directory.write(directory.summary, json.dumps(evidence(prepared, search, found, reason), indent=2) + "\n")
    remove_made(directory.statistics_cache)
    write_run_report(directory, search.journal)
    files = {
        "recipe": directory.recipe,
        "model": directory.model,
        "card": directory.card,
        "trials": directory.trials,
        "report": directory.report,
    }
    if isinstance(short, ShortRecipe):
        files["simple"] = short.file
    if found.front is not None:
        files["pareto"] = directory.pareto
    search.watch(RunFinished(directory.path, best, files, summary(prepared, found)))
    return Outcome(reason, best, directory)


def _write_front(directory: RunDirectory, front: Front | None) -> None:
    """A recipe for every member, in the place of those of an earlier end of this run."""
    if front is None:
        return
    with new_directory(directory.pareto, overwrite=True) as pareto:
        for name, trial in front.files().items():
            write_atomically(pareto / name, dump_recipe(trial.recipe))
            copy_methods([one["merge_method"] for one in written_documents(trial.recipe)], pareto)


def _save_model(
    prepared: Prepared, directory: RunDirectory, best: Trial, scored: str, beside: Mapping[str, str | bytes]
) -> None:
    """Merge to disk, and let the result take its place only when it is what was scored, bit for bit.

    Args:
        prepared: the search.
        directory: of the run.
        best: what is merged.
        scored: the fingerprint of what was scored.
        beside: name -> content of the files that lie beside the weights.

    Raises:
        SearchError: it is not; the earlier model, if any, stays.
    """
    recipe = documents_of(best.recipe, directory.recipe.name)
    unproven = directory.unproven_model
    saved = merge(
        recipe, unproven, relative_to=prepared.directory, seed=prepared.config.seed, overwrite=True, write_card=False
    )
    if saved.fingerprint != scored:
        remove_made(unproven)
        raise SearchError(
            f"the merged model ({saved.fingerprint[:16]}) is not the one that was scored ({scored[:16]}) and is not "
            "kept; the recipe and the trials are. Was a source model changed during the run?"
        )
    for name, content in beside.items():
        write_atomically(unproven / name, content)
    list_files(unproven)
    move_into_place(unproven, directory.model)


def _draw_history(directory: RunDirectory, journal: Journal) -> bytes | None:
    """How the search went, for the card; None where there is nothing to show, or nothing to draw it with."""
    from evolve.report.pictures.history import history
    from evolve.report.pictures.still import can_draw, png

    with _no_loss(directory, "picture of the search"):
        figure = history(RunRecord.of(directory, journal)) if can_draw() else None
        return None if figure is None else png(figure, "How the search went")
    return None


def write_so_far(directory: RunDirectory, journal: Journal, best: Trial | None, cost_terms: CostTerms) -> None:
    """What an unfinished run leaves, too: the table of trials, the best recipe so far, and the report.

    What a finished one left is kept, where nothing was scored since.
    """
    trials = journal.trials()
    if directory.read_summary(candidates_done(trials)):
        return
    _write_trials(directory, trials, best, cost_terms)
    write_run_report(directory, journal)


def _write_trials(directory: RunDirectory, trials: Sequence[Trial], best: Trial | None, cost_terms: CostTerms) -> None:
    directory.write(directory.trials, trials_csv(trials, cost_terms))
    if best is not None:
        directory.write(directory.recipe, dump_recipe(best.recipe))


def write_run_report(directory: RunDirectory, journal: Journal) -> None:
    """The report of a run, finished or not; where it cannot be made, a warning."""
    with _no_loss(directory, "report"):
        from evolve.report.pictures.page import write_report  # brings plotly

        write_report(directory, RunRecord.of(directory, journal))


@contextlib.contextmanager
def _no_loss(directory: RunDirectory, what: str) -> Iterator[None]:
    """What a search has found is not lost where it cannot be shown: an error is a warning, also that of a full disk."""
    try:
        yield
    except Exception as error:  # a picture may be anyone's, and its template too
        if not directory.path.is_dir():
            raise
        reason = error_lines(error)[0]
        print(f"warning: no {what} was made: {reason}. Try: evolve report {directory.path}", file=sys.stderr)
