"""`evolve watch`: a run that goes on in another process, told from the events that it leaves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolve.actions.status import open_journal
from evolve.report.event_file import EventReader
from evolve.report.event_record import event_name, event_of
from evolve.trials.events import Event, RunFinished, RunStarted, TrialFinished, Watcher, WorkBegun
from evolve.trials.journal import Journal
from evolve.trials.run_directory import RunDirectory
from evolve.trials.trial import State, Trial

SECONDS = 1.0  # between two looks at the events

_STARTED, _FINISHED, _BEGUN = map(event_name, (RunStarted, TrialFinished, WorkBegun))


def watch_run(path: Path, watch: Watcher, wait: Callable[[float], None] = time.sleep) -> bool:
    """Tell how a run stands and then what it does, until no process works on it.

    Args:
        path: directory of the run.
        watch: is told what the run's own process tells.
        wait: for so many seconds.

    Returns:
        Whether its end was told. Nothing is told of a run that nobody works on.

    Raises:
        ConfigError, JournalError: the directory holds no run, or one that is damaged.
    """
    directory = RunDirectory(path)
    goes_on = directory.in_use()
    if not goes_on:
        open_journal(directory)
        return False
    replay = _Replay(directory)
    with EventReader(directory.events) as reader:
        while goes_on:
            goes_on = directory.in_use()  # asked first, so that what its end wrote is told
            for event in replay.news(list(reader.news())):
                watch(event)
            if goes_on:
                wait(SECONDS)
    return replay.finished


class _Replay:
    """Events of records; what became of trials is in the journal, which is written before it is told."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._journal: Journal | None = None  # opened when it is needed: a run tells something before it has one
        self._scored: dict[int, Trial] = {}
        self._started = self.finished = False

    def news(self, records: list[dict[str, Any]]) -> Iterator[Event]:
        """What the records tell; on the first look at a run that has started, how it stands."""
        if not self._started and any(record["event"] == _STARTED for record in records):
            records = _standing(records)
        for record in records:
            if record["event"] == _STARTED and self._started:
                continue  # of a file that was begun anew
            resumed = self._earlier(records) if record["event"] == _STARTED else ()
            with contextlib.suppress(LookupError, TypeError, ValueError):  # of another version
                event = event_of(record, self._trial, resumed)
                if event is not None:
                    self._started |= isinstance(event, RunStarted)
                    self.finished |= isinstance(event, RunFinished)
                    yield event

    def _earlier(self, records: Iterable[Mapping[str, Any]]) -> list[Trial]:
        """Every trial that is finished and of which no record will tell."""
        told = {record["trial"]["number"] for record in records if record["event"] == _FINISHED}
        done = (trial for trial in self._opened() if trial.state is not State.RUNNING and trial.number not in told)
        return [trial.outline() for trial in done]

    def _trial(self, number: int) -> Trial:
        if number in self._scored:
            return self._scored[number]
        trial = self._opened().trial(number)
        shown = replace(trial.outline(), genes=trial.genes)
        if trial.state is not State.RUNNING:  # as the uniform merge is while parents are scored
            self._scored[number] = shown
        return shown

    def _opened(self) -> Journal:
        if self._journal is None:
            self._journal = open_journal(self._directory)
        return self._journal


def _standing(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The start of a run; the last that it has told since of every kind, and every trial since work was given out.

    What came before is in the journal.
    """
    standing: dict[tuple[str, int], dict[str, Any]] = {}
    for record in records:
        name = record["event"]
        if name == _STARTED:
            standing.clear()
        if name == _BEGUN:
            for key in [key for key in standing if key[0] == _FINISHED][:-1]:
                del standing[key]
        key = name, record["trial"]["number"] if name == _FINISHED else 0
        standing.pop(key, None)
        standing[key] = record
    return list(standing.values())
