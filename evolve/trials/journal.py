"""Trials on disk, in Optuna's storage: the only state a resume needs, and open to Optuna's dashboard and exports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from evolve.trials.clean_text import writable
from evolve.trials.journal_file import JournalFile
from evolve.trials.journal_lines import JournalError, study_name
from evolve.trials.spending import Spending
from evolve.trials.stage import Stage, StepsOf
from evolve.trials.standing import Standing, StandingFile
from evolve.trials.step import Step
from evolve.trials.study_storage import open_storage, readable, study_ids
from evolve.trials.study_trials import Again, StudyTrials
from evolve.trials.tally import Tally
from evolve.trials.trial import Evaluation, State, Trial
from evolve.trials.trial_record import evaluation_from_json, evaluation_to_json, held_out_of_0_1_0, result_to_json
from evolve.trials.writer_lock import file_of

_AGAIN = "again:"  # results of trials that had failed
_COPY = "header_copy"
_SHOWN = 8  # faults of a file
_SAVED = "saved:"

WAY = "way"
"""The note of the points that the gradient start looked at: item evaluations up to there, objective, label."""


class Journal:
    """The study of one run. One process writes; any number may read.

    A trial is numbered when its batch begins, so numbers follow the order of asking and not of finishing.

    Attributes:
        location: the file, or the URL.

    Example:
        >>> journal = Journal.open("runs/demo/journal.log")
        >>> [trial.objective for trial in journal.trials()]
    """

    def __init__(
        self, storage: BaseStorage, study_id: int, location: str = "", file: JournalFile | None = None
    ) -> None:
        self._storage = storage
        self._study_id = study_id
        self.location = location
        self._file = file
        self._tally: Tally | None = None  # where the standing of what is written is kept beside it
        self._trials = StudyTrials(storage, study_id, file)

    @classmethod
    def open(cls, location: str, create: bool = False, objectives: int = 1) -> Journal:
        """Open a journal file, or any Optuna storage URL (`sqlite:///...`); a new one for so many objectives.

        Args:
            location: where it is.
            create: whether this process writes it, which `evolve.trials.writer_lock` has made sure of. A damaged file
                is mended first, and kept beside it as it was.
            objectives: of a new one.

        Raises:
            JournalError: there is none and `create` is false; it is something else, or cannot be read.
        """
        file = JournalFile(Path(location), objectives) if "://" not in location else None
        where = file_of(location)
        with readable(location):
            if where is not None and not create and not where.is_file():  # which whoever reads must not make
                raise JournalError(f"{location}: no journal there. Is this the output directory of a run?")
            if file is not None and create:
                file.open_for_writing()
            storage = open_storage(location, file)
            studies = study_ids(storage)
            if not studies and not create:
                raise JournalError(
                    f"{location}: holds no search: it is empty, or another program's. Name the storage of a run"
                )
            if not studies:
                studies = [storage.create_new_study([StudyDirection.MAXIMIZE] * objectives, study_name(0))]
            journal = cls(storage, studies[-1], location, file)
        if create and file is not None:
            earlier = len(journal.saved())
            for number, found in enumerate(file.saved, start=earlier):
                journal.note(f"{_SAVED}{number}", found)
            journal._keep_standing()
        return journal

    @property
    def faults(self) -> list[str]:
        """What is wrong with it and was left out or mended, a line each; empty for a journal that is whole."""
        found = [] if self._file is None else _faults_of(self._file, self.location)
        if self._trials.strays:
            found.append(f"{self.location}: {self._trials.strays} trials are not of this search, and are left out")
        return found

    def saved(self) -> list[tuple[Mapping[str, Any], Evaluation]]:
        """Recipes and what they scored, of trials that lost their place with a line before them."""
        notes = self._notes()
        kept = [notes[key] for key in notes if key.startswith(_SAVED)]
        return [(found["trial"]["recipe"], evaluation_from_json(-1, found["result"])) for found in kept]

    def begin_anew(self) -> None:
        """Begin a search without trials; what there is stays in the journal, as a study of its own."""
        directions = self._storage.get_study_directions(self._study_id)
        name = study_name(len(study_ids(self._storage)))
        self._study_id = self._storage.create_new_study(directions, name)
        self._trials = StudyTrials(self._storage, self._study_id, self._file)
        if self._tally is not None:
            self._tally = Tally()
        self._count()

    @property
    def spent(self) -> Spending:
        """Purpose -> item evaluations, those on held-out items and of what is not recorded yet included."""
        return (self._tally or self._counted()).spent

    def standing(self, *told: int) -> Standing:
        """How the run stands.

        Args:
            told: numbers of trials that are told in any case, where they have an objective.
        """
        with readable(self.location):
            notes = {
                "search_seconds": self.noted("search_seconds", 0.0),
                "budget": self.header.get("config", {}).get("budget", {}),
                "command": self.noted("command", {}),
                "faults": self.faults if self._tally is None else (),  # a file that is written is mended
            }
            tally = self._tally or self._counted()
            for number in told:
                if 0 <= number < len(self._trials):
                    tally.tell(self.trial(number))
            return tally.standing(self._trials.offset, notes)

    def _counted(self) -> Tally:
        tally = Tally()
        for stage in Stage:
            for evaluation in self.kept(stage).values():
                tally.keep(stage, evaluation)
        for of in StepsOf:
            for step in self.steps(of).values():
                tally.keep_step(step, of)
        validated = self.kept(Stage.VALIDATION)
        for trial in self:
            tally.begin(trial)
            if trial.evaluation is not None:
                tally.finish(trial)
            if trial.number in validated:
                tally.tell(trial)
        return tally

    def _keep_standing(self) -> None:
        """From now on, have how the run stands beside the file, unless it cannot say what the file does."""
        if self._file is None or self._trials.strays or StandingFile(self._file.path).is_foreign:
            return
        with readable(self.location):
            self._tally = self._counted()
        self._count()

    def _count(self, *changes: Callable[[Tally], None]) -> None:
        """After something is written: count it, and have the standing say so."""
        if self._file is None or self._tally is None:
            return
        for change in changes:
            change(self._tally)
        StandingFile(self._file.path).write(self.standing(), *self._file.length_and_checksum)

    def scored_count(self) -> int:
        """How many trials have a score; where none has, evaluations that are kept for later ones count."""
        trials = sum(trial.state not in (State.RUNNING, State.FAILED) for trial in self.trials())
        kept = [found for stage in Stage for found in self.kept(stage).values() if found.failure is None]
        return trials or len(kept) + sum(step.failure is None for step in self.steps().values())

    @property
    def header(self) -> dict[str, Any]:
        """What was written by `write_header`; empty for a new journal."""
        notes = self._notes()
        found = (notes.get(key) for key in ("header", _COPY))
        return next((dict(header) for header in found if header and isinstance(header, Mapping)), {})

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Keep the resolved configuration, item ids and versions with the trials."""
        for key in ("header", _COPY):  # twice: without it nobody knows what the trials belong to
            self.note(key, dict(header))

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value, replacing an earlier one."""
        self._set(key, value)
        self._count()

    def _set(self, key: str, value: Any) -> None:
        self._storage.set_study_user_attr(self._study_id, key, writable(value))

    def noted(self, key: str, default: Any = None) -> Any:
        """A value kept by `note`."""
        return self._notes().get(key, default)

    def _notes(self) -> Mapping[str, Any]:
        return self._storage.get_study_user_attrs(self._study_id)

    def keep(self, stage: Stage, evaluation: Evaluation) -> None:
        """Keep an evaluation that is not a trial's result, or not yet."""
        self._set(f"{stage}:{evaluation.number}", evaluation_to_json(evaluation))
        self._count(lambda tally: tally.keep(stage, evaluation))
        if stage is Stage.VALIDATION:
            self._count(lambda tally: tally.tell(self.trial(evaluation.number)))

    def kept(self, stage: Stage) -> dict[int, Evaluation]:
        """Trial number -> evaluation, of all that were kept for this stage."""
        notes = self._notes()
        prefix = f"{stage}:"
        with readable(self.location):
            found = held_out_of_0_1_0(notes) if stage is Stage.VALIDATION else {}
            for key in notes:
                if key.startswith(prefix):
                    number = int(key.removeprefix(prefix))
                    found[number] = evaluation_from_json(number, notes[key])
        return found

    def keep_step(self, step: Step, of: StepsOf = StepsOf.SEARCH) -> None:
        """Keep a gradient, by default a step of the gradient start."""
        self._set(f"{of}:{step.number}", {name: value for name, value in asdict(step).items() if name != "number"})
        self._count(lambda tally: tally.keep_step(step, of))

    def steps(self, of: StepsOf = StepsOf.SEARCH) -> dict[int, Step]:
        """Number -> step, of all that were kept."""
        prefix = f"{of}:"
        notes = self._notes()
        with readable(self.location):
            found = {int(key.removeprefix(prefix)): notes[key] for key in notes if key.startswith(prefix)}
            return {
                number: Step(number=number, **{**kept, "gradient": tuple(kept["gradient"])})
                for number, kept in found.items()
            }

    def begin(self, trials: Sequence[Trial], distributions: Mapping[str, BaseDistribution]) -> None:
        """Write a batch as running, in order; their numbers must continue the journal's.

        Args:
            trials: without results.
            distributions: gene name -> Optuna distribution, of all genes that the trials have.
        """
        for trial in trials:
            if trial.number != (expected := len(self._trials)):
                raise JournalError(
                    f"{self.location}: trial {trial.number} would be numbered {expected}: another process writes "
                    "this journal. End it, and run the same command again"
                )
            self._trials.add(trial, distributions)
        self._count(*(functools.partial(Tally.begin, trial=trial) for trial in trials))

    def start(self, number: int) -> None:
        """Note that a worker takes a trial, unless one has before."""
        if self._trials.start(number):
            self._count()

    def finish(self, trial: Trial) -> None:
        """Write a trial's result; that of one that had failed and was tried again takes the failure's place."""
        result = writable(result_to_json(trial))
        if self._trials.is_finished(trial.number):
            before = self.trial(trial.number)
            self._set(f"{_AGAIN}{trial.number}", result)
            self._count(lambda tally: tally.finish(trial, before))
        else:
            self._trials.finish(trial, result)
            self._count(lambda tally: tally.finish(trial))

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return list(self)

    def __iter__(self) -> Iterator[Trial]:
        """Every trial, by number, one at a time in memory."""
        with readable(self.location):
            yield from self._trials.trials(self._again())

    def trial(self, number: int) -> Trial:
        """The trial of a number that there is."""
        with readable(self.location):
            return self._trials.trial(number, self._again())

    def ranges(self, number: int) -> dict[str, tuple[float, float]]:
        """Gene name -> lowest and highest value, of the genes of a trial that are numbers."""
        return self._trials.ranges(number)

    def last_change(self) -> datetime | None:
        """When the last trial ended or began; None before the first."""
        return self._trials.last_change()

    def _again(self) -> Again:
        notes = self._notes()
        return lambda number: notes.get(f"{_AGAIN}{number}")


def _faults_of(file: JournalFile, location: str) -> list[str]:
    found = [f"{location}:{fault.line}: {fault.what}" for fault in file.faults[:_SHOWN]]
    if len(file.faults) > _SHOWN:
        found.append(f"{location}: and {len(file.faults) - _SHOWN} more")
    if file.kept is not None and file.faults:
        saved = len(file.saved)
        also = f"; {saved} results that lost their place are used when they are asked for again" if saved else ""
        mended = f"repaired; the original is kept as {file.kept.name}{also}. What is lost is scored again"
        found.append(f"{location}: {mended}")
    elif file.faults:
        found.append(f"{location}: `evolve run` repairs it, and scores again what is lost")
    return found
