"""`evolve run`: from a prepared search to the files of the output directory."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evolve.evaluation.evaluator import Evaluator
from evolve.preflight.prepare import Prepared
from evolve.problems import ConfigError, Problem
from evolve.report.formatting import outside
from evolve.scoring import content_keys, probe_scorers
from evolve.scoring.backends.factory import check_device
from evolve.scoring.scorers.registry import may_name_files
from evolve.search.conduct import conduct
from evolve.search.ending import SearchError
from evolve.search.expected_spending import expected_candidates
from evolve.search.loop import Search
from evolve.search.objective import ObjectiveFunction
from evolve.search.opening import choose_start
from evolve.search.results import Outcome, finish, versions, write_so_far
from evolve.search.start import create_evaluator, make_optimizer
from evolve.trials.events import RunStarted, StopReason, Watcher
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory, dump_yaml, refuse_changes
from evolve.trials.trial import Kind, State, Trial, best_of
from merge_core import METHODS
from merge_core.recipe.user_methods import copy_methods


def run(prepared: Prepared, output: Path, watch: Watcher, command: str = "") -> Outcome:
    """Search, or go on searching, and write everything that a person takes away.

    Args:
        prepared: the search.
        output: its directory; a run in it is continued.
        watch: is told what happens.
        command: what starts this run again, for `evolve status` to say.

    Raises:
        ConfigError: the directory holds another run, or is in use.
        SearchError: no parent can be scored.
    """
    if prepared.config.sweep is not None:
        raise ConfigError(Problem(("sweep",), "compares variants. Use evolve sweep, or remove the section"))
    # A wrong option is found before anything is scored.
    optimizer = make_optimizer(prepared, [], candidates=expected_candidates(prepared)).label
    choice = choose_start(prepared)
    start = f"{choice.method}, {choice.reason}"
    if prepared.config.ray.address is None:  # not in `evolve check`, which may plan for another machine's GPUs
        check_device(prepared.config.backend.device)
    probe_scorers(prepared.scorers)
    directory = RunDirectory(output)
    config = prepared.config
    with directory.locked(prepared.inputs), _soft_stop() as stop:
        location = config.storage or str(directory.journal)
        journal = Journal.open(location, create=True, objectives=len(config.objectives) or 1)
        _open_run(journal, prepared, directory)
        journal.note("optimizer", optimizer)
        journal.note("command", {"line": command, "directory": str(Path.cwd())})
        evaluator = create_evaluator(prepared, directory.statistics_cache)
        try:
            search = Search(
                journal=journal,
                space=prepared.space,
                evaluator=evaluator,
                objective_function=ObjectiveFunction(prepared.scorers, config, prepared.space.base_model),
                items={name: split.search for name, split in prepared.splits.items()},
                budget=config.budget,
                watch=watch,
                stop=stop,
            )
            watch(_started(prepared, output, search.trials, evaluator, optimizer, start))
            reason = conduct(search, prepared)
            candidates = [trial for trial in search.trials if trial.kind is Kind.CANDIDATE]
            best = best_of(candidates)
            if reason is StopReason.INTERRUPTED or best is None:
                write_so_far(directory, search.trials, best, search.objective_function.cost_terms)
                if reason is not StopReason.INTERRUPTED:
                    raise SearchError(_nothing_scored(candidates))
                return Outcome(reason, best, directory)
            return finish(prepared, directory, search, reason)
        finally:
            evaluator.close()


def _nothing_scored(candidates: list[Trial]) -> str:
    infeasible = [trial for trial in candidates if trial.state is State.INFEASIBLE]
    if infeasible:
        nearest = min(infeasible, key=lambda trial: (trial.measured.total_violation, trial.number))
        distance = outside(nearest.measured)
        return f"no candidate is feasible; the nearest is {nearest.label}: {distance}. Loosen the constraints"
    failures = [trial.measured.failure for trial in candidates if trial.measured.failure]
    if not failures:
        return "the budget ended before a candidate was scored; raise it and run again"
    return f"all {len(candidates)} candidates failed, the last with: {failures[-1]}"


def _open_run(journal: Journal, prepared: Prepared, directory: RunDirectory) -> None:
    """A new run writes down what it is; a continued one must be the same."""
    resolved = prepared.config.model_dump(mode="json", exclude_none=True)
    search_path = _recorded_search_path(prepared, directory)
    if search_path:  # as seen from here, so that the file works from where it is written, too
        resolved["task_search_path"] = [_seen_from_here(path) for path in search_path]
    content = _content_keys(prepared)
    header = journal.header
    made_with = [*header.get("made_with", []), versions()]
    if len(made_with) > 1 and made_with[-1] == made_with[-2]:
        made_with.pop()
    if header:
        refuse_changes(header["config"], resolved, directory.search.name)
        # What an earlier version did not record is not compared.
        changed = [name for name, key in header.get("content", {}).items() if content.get(name) != key]
        if header["items"] != _item_ids(prepared) or changed:
            methods = [name for name in changed if name in prepared.template.methods]
            what = f"the code of {', '.join(methods)} has" if methods else "the tasks' data or functions have"
            raise ConfigError(f"{what} changed since this run was begun; start a new run with another --output")
    journal.write_header(
        {
            "config": resolved,
            "items": _item_ids(prepared),
            "content": content,
            "made_with": made_with,
        }
    )
    if not directory.search.exists() or not directory.search.samefile(prepared.file):
        directory.write(directory.search, dump_yaml(resolved))
    copy_methods(prepared.template.methods, directory.path)  # for that file, and for the recipes beside it
    directory.write(directory.items, json.dumps(_item_ids(prepared)) + "\n")


def _content_keys(prepared: Prepared) -> dict[str, str]:
    """Hashes of what scores depend on beside the configuration and the models."""
    methods = {name: METHODS[name].code for name in prepared.template.methods}
    return content_keys(prepared.scorers) | {name: code for name, code in methods.items() if code}


def _recorded_search_path(prepared: Prepared, directory: RunDirectory) -> list[str]:
    """With the directory of search.yml, where it names files beside it: the copy lies elsewhere."""
    config, path = prepared.config, list(prepared.task_search_path)
    names_files = config.constraints or ":" in config.optimizer.name or any(map(may_name_files, config.tasks))
    here = str(prepared.directory)
    if names_files and here not in path and prepared.directory != directory.path.resolve():
        path.append(here)
    return path


def _seen_from_here(path: str) -> str:
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def _item_ids(prepared: Prepared) -> dict[str, dict[str, list[int]]]:
    return {
        name: {"search": list(split.search), "held_out": list(split.held_out)}
        for name, split in prepared.splits.items()
    }


def _started(
    prepared: Prepared, output: Path, trials: list[Trial], evaluator: Evaluator, optimizer: str, start: str
) -> RunStarted:
    return RunStarted(
        output=output,
        task_names=[scorer.name for scorer in prepared.scorers],
        genes=len(prepared.space.coordinates),
        optimizer=optimizer,
        start=start,
        evaluation_budget=prepared.config.budget.evaluations,
        workers=evaluator.workers,
        resumed_trials=sum(trial.state is not State.RUNNING for trial in trials),
    )


@contextmanager
def _soft_stop() -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) asks for a stop, the second is the ordinary one."""
    stop = threading.Event()
    previous: dict[signal.Signals, Any] = {}

    def ask(number: int, _frame: object) -> None:
        stop.set()
        for name, handler in previous.items():
            signal.signal(name, handler)

    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGTERM):
            previous[name] = signal.signal(name, ask)
    try:
        yield stop
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
