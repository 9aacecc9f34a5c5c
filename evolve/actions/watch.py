"""`evolve watch`: a run that goes on in another process, followed by what it writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evolve.actions.status import open_journal
from evolve.trials.events import Event, RunStarted, TrialFinished, Watcher
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.trial import Kind, State, Trial, best_of

SECONDS = 1.0  # between two looks at the journal


def watch_run(path: Path, watch: Watcher, wait: Callable[[float], None] = time.sleep) -> None:
    """Tell what a run has done and does, until no process works on it.

    Args:
        path: directory of the run.
        watch: is told.
        wait: for so many seconds.

    Raises:
        ConfigError, JournalError: the directory holds no run, or one that is damaged.
    """
    directory = RunDirectory(path)
    journal = open_journal(directory)
    trials = journal.trials()
    watch(_started(path, journal, trials))
    told = {trial.number for trial in trials if trial.state is not State.RUNNING}
    goes_on = True
    while goes_on:
        goes_on = directory.in_use()  # asked first, so that what its end wrote is told
        for event in _news(journal, told):
            watch(event)
        if goes_on:
            wait(SECONDS)


def _started(path: Path, journal: Journal, trials: list[Trial]) -> RunStarted:
    config: dict[str, Any] = journal.header.get("config", {})
    return RunStarted(
        output=path,
        task_names=list(journal.header.get("items", {})),
        genes=max((len(trial.genes) for trial in trials), default=0),
        optimizer=str(journal.noted("optimizer", "")),
        start=str(config.get("start", {}).get("method", "auto")),
        evaluation_budget=config.get("budget", {}).get("evaluations"),
        workers=int(config.get("workers", {}).get("count", 1)),
        resumed=[trial for trial in trials if trial.state is not State.RUNNING],
    )


def _news(journal: Journal, told: set[int]) -> Iterator[Event]:
    """What was finished since the last look; `told` grows by it."""
    trials = journal.trials()
    done = [trial for trial in trials if trial.state is not State.RUNNING]
    candidates = sum(trial.kind is Kind.CANDIDATE for trial in done)
    for trial in done:
        if trial.number not in told:
            told.add(trial.number)
            yield TrialFinished(
                trial=trial,
                best=best_of(done),
                best_parent=best_of([one for one in done if one.kind is Kind.PARENT]),
                uniform=next((one for one in done if one.kind is Kind.UNIFORM), None),
                candidates_done=candidates,
                evaluation_budget=journal.header.get("config", {}).get("budget", {}).get("evaluations"),
                seconds_per_evaluation=trial.measured.total_seconds,
                seconds_left=None,
            )
