"""`evolve run`: from a prepared search to the files of the output directory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from evolve.actions.open_run import open_journal, open_run, refuse_written_over
from evolve.actions.simplify import shortener
from evolve.evaluation.at_work import AtWork
from evolve.evaluation.saved_results import SavedResults
from evolve.evaluation.shared_workers import OpenWorkers
from evolve.preflight.prepare import Prepared
from evolve.problems import ConfigError, Problem, noted
from evolve.report.changed_models import ChangedModels
from evolve.report.event_file import EventFile
from evolve.report.formatting import outside
from evolve.scoring import probe_scorers
from evolve.scoring.backends.factory import check_device
from evolve.scoring.scorers.user_files import SearchPaths
from evolve.search_loop.conduct import conduct
from evolve.search_loop.ending import SearchError
from evolve.search_loop.expected_spending import expected_candidates
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.open_evaluator import create_evaluator
from evolve.search_loop.opening import WARM_STARTS, check_warm_start, choose_start
from evolve.search_loop.results import Outcome, finish, write_so_far
from evolve.search_loop.start import make_optimizer
from evolve.search_loop.validation import best_so_far
from evolve.stopping import StoppedAtOnceError, soft_stop
from evolve.trackers.callback import Callback
from evolve.trackers.callback_watcher import CallbackWatcher
from evolve.trackers.registry import create_callback, find_callback
from evolve.trials.events import ModelsRead, Preparing, RunStarted, StopReason, Watcher
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.spending import of_the_search
from evolve.trials.trial import Kind, State, Trial
from evolve.trials.writer_lock import storage_held


def run(
    prepared: Prepared,
    output: Path,
    watch: Watcher,
    command: str = "",
    *,
    rescore: bool = False,
    open_workers: OpenWorkers | None = None,
    callbacks: Sequence[Callback] = (),
    pause_after: int | None = None,
    warm_starts: Sequence[Sequence[Any]] | None = None,
) -> Outcome:
    """Search, or go on searching, and write everything that a person takes away.

    Args:
        prepared: the search.
        output: its directory; a run in it is continued.
        watch: is told what happens.
        command: what starts this run again, for `evolve status` to say.
        rescore: whether a search whose scores belong to other tasks, code, models or versions begins anew.
        open_workers: gives the workers; by default they are started.
        callbacks: are told, too, beside those that the search names.
        pause_after: item evaluations of the search after which it stops, to be continued from its journal.
        warm_starts: where earlier runs ended, as a journal notes it; None: they are looked for.

    Raises:
        ConfigError: the directory holds another run, or is in use.
        SearchError: no parent can be scored.
    """
    if prepared.config.sweep is not None:
        raise ConfigError(Problem(("sweep",), "compares variants. Use evolve sweep, or remove the section"))
    directory, config = RunDirectory(output), prepared.config
    # Of a run that is continued its journal knows where it began, whatever became of the earlier runs since.
    looks_for_warm_starts = warm_starts is None and not directory.journal.exists()
    optimizer, start = _check_options(prepared, looks_for_warm_starts=looks_for_warm_starts)
    callbacks = [*callbacks, *_callbacks(prepared)]
    location = config.storage or str(directory.journal)
    with (
        directory.locked(prepared.inputs),
        storage_held(location),
        EventFile(directory.events, watch) as watch,
        CallbackWatcher(watch, callbacks) as watch,
    ):
        if directory.journal.exists():
            watch(Preparing("reading what this run has found so far"))
        journal = open_journal(location, prepared, directory, rescore=rescore)
        open_run(journal, prepared, directory, rescore=rescore)
        journal.note("optimizer", optimizer)
        if warm_starts is not None and journal.noted(WARM_STARTS) is None:
            journal.note(WARM_STARTS, warm_starts)
        journal.note("command", {"line": command, "directory": str(Path.cwd())})
        objective_function = ObjectiveFunction(prepared.scorers, config, prepared.space.base_model, prepared.objective)
        evaluator = _open_evaluator(prepared, directory, journal, watch, open_workers)
        try:
            search = Search(
                journal=journal,
                space=prepared.space,
                evaluator=evaluator,
                objective_function=objective_function,
                items={name: split.search for name, split in prepared.splits.items()},
                budget=config.budget,
                watch=ChangedModels(watch),
                stop=Event(),
                pause_after=pause_after,
                on_change=directory.goes_on,
            )
            for failure in journal.standing().lasting_failures:
                print(f"warning: {failure}", file=sys.stderr)
            watch(_started(prepared, search, output, optimizer, start))
            with soft_stop(search.stop, lambda: watch(search.stop_asked(evaluator.labels))):
                return _search(prepared, directory, search)
        except (StoppedAtOnceError, SearchError) as ended:
            best = best_so_far(journal.trials(), prepared)
            write_so_far(directory, journal, best, objective_function.cost_terms)
            if isinstance(ended, SearchError):
                raise
            return Outcome(StopReason.INTERRUPTED, best, directory)
        finally:
            evaluator.close()


def _check_options(prepared: Prepared, *, looks_for_warm_starts: bool) -> tuple[str, str]:
    """Find what is wrong before anything is scored. Returns the optimizer and the start, for people."""
    with prepared.document.locating():
        optimizer = make_optimizer(prepared, [], candidates=expected_candidates(prepared)).label
        choice = choose_start(prepared)
        if looks_for_warm_starts:
            check_warm_start(prepared)
    if prepared.config.ray.address is None:  # not in `evolve check`, which may plan for another machine's GPUs
        check_device(prepared.config.backend.device)
    probe_scorers(prepared.scorers)
    return optimizer, f"{choice.method}, {choice.reason}"


def _open_evaluator(
    prepared: Prepared, directory: RunDirectory, journal: Journal, watch: Watcher, open_workers: OpenWorkers | None
) -> AtWork:
    count = prepared.config.workers.count
    watch(Preparing(f"starting {count} worker{'' if count == 1 else 's'}"))
    evaluator = create_evaluator(prepared, directory.statistics_cache, journal, open_workers, _by_percent(watch))
    if saved := journal.saved():
        evaluator = SavedResults(evaluator, saved)
    return AtWork(evaluator, watch)


def _search(prepared: Prepared, directory: RunDirectory, search: Search) -> Outcome:
    """Search until there is a reason to end, and write what is found.

    Raises:
        SearchError: nothing could be scored.
        ConfigError: a model was written over meanwhile.
    """
    reason = conduct(search, prepared)
    best = best_so_far(search.trials, prepared)
    if reason is StopReason.PAUSED:
        return Outcome(reason, best, directory)
    if reason is StopReason.INTERRUPTED:
        write_so_far(directory, search.journal, best, search.objective_function.cost_terms)
        return Outcome(reason, best, directory)
    if best is None:
        raise SearchError(_nothing_scored(search.trials))
    refuse_written_over(search.journal, prepared)
    return finish(prepared, directory, search, reason, shortener(prepared, directory, search))


def _callbacks(prepared: Prepared) -> list[Callback]:
    """Those that search.yml names."""
    paths = SearchPaths(prepared.directory, tuple(map(Path, prepared.task_search_path)))
    made, problems = [], list[Problem]()
    for number, callback in enumerate(prepared.config.callbacks):
        with noted(problems, "callbacks", number):
            made.append(create_callback(find_callback(callback.name, paths), callback.options))
    if problems:
        raise ConfigError(*problems)
    return made


def _by_percent(watch: Watcher) -> Callable[[int, int], None]:
    """What tells how far the models are read, a hundred times at most."""
    told = -1

    def on_read(done: int, total: int) -> None:
        nonlocal told
        percent = 100 * done // total if total else 100
        if percent > told:
            told = percent
            watch(ModelsRead(done, total))

    return on_read


def _nothing_scored(trials: Sequence[Trial]) -> str:
    candidates = [trial for trial in trials if trial.kind is Kind.CANDIDATE]
    infeasible = [trial for trial in candidates if trial.state is State.INFEASIBLE]
    if infeasible:
        nearest = min(infeasible, key=lambda trial: (trial.measured.total_violation, trial.number))
        distance = outside(nearest.measured)
        return f"no candidate is feasible; the nearest is {nearest.label}: {distance}. Loosen the constraints"
    failures = [trial.measured.failure for trial in candidates if trial.measured.failure]
    if not failures:
        return "the budget ended before a candidate was scored; raise it and run again"
    return f"all {len(candidates)} candidates failed, the last with: {failures[-1]}"


def _started(prepared: Prepared, search: Search, output: Path, optimizer: str, start: str) -> RunStarted:
    return RunStarted(
        output=output,
        task_names=[scorer.name for scorer in prepared.scorers],
        genes=len(prepared.space.coordinates),
        optimizer=optimizer,
        start=start,
        evaluation_budget=prepared.config.budget.evaluations,
        workers=search.evaluator.workers,
        resumed=[trial.outline() for trial in search.trials if trial.state is not State.RUNNING],
        minimized_tasks=[scorer.name for scorer in prepared.scorers if scorer.direction == "minimize"],
        item_evaluations=of_the_search(search.journal.spent),
        item_budget=prepared.config.budget.items,
    )
