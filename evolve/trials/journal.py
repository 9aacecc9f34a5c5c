"""Trials on disk, in Optuna's storage: the only state a resume needs, and open to Optuna's dashboard and exports."""

from __future__ import annotations

import functools
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from evolve.problems import error_lines
from evolve.trials.clean_text import writable
from evolve.trials.database_storage import DRIVERS, open_database
from evolve.trials.journal_file import JournalFile
from evolve.trials.journal_lines import PROPOSAL, RESULT, JournalError, Place, study_name
from evolve.trials.spending import Spending
from evolve.trials.stage import Stage, StepsOf
from evolve.trials.standing import Standing, StandingFile
from evolve.trials.step import Step
from evolve.trials.tally import Tally
from evolve.trials.trial import Evaluation, State, Trial
from evolve.trials.trial_record import (
    evaluation_from_json,
    evaluation_to_json,
    held_out_of_0_1_0,
    proposal_to_json,
    result_to_json,
    trial_from_json,
)
from evolve.trials.writer_lock import file_of, without_password

_AGAIN = "again:"  # results of trials that had failed
_COPY = "header_copy"
_SHOWN = 8  # faults of a file
# Module that a kind of database is spoken to by -> what installs it.
_SAVED = "saved:"

optuna.logging.set_verbosity(optuna.logging.WARNING)


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
        self._strays = 0
        self._tally: Tally | None = None  # where the standing of what is written is kept beside it
        self._ids = [frozen._trial_id for frozen in self._frozen()]  # by number

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
        with _reading(location):
            if where is not None and not create and not where.is_file():  # which whoever reads must not make
                raise JournalError(f"{location}: no journal there. Is this the output directory of a run?")
            if file is not None and create:
                file.open_for_writing()
            storage = open_database(location, where) if file is None else _file_storage(file)
            studies = _generations(storage)
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
    def notes(self) -> list[str]:
        """What is wrong with it and was left out or mended, a line each; empty for a journal that is whole."""
        found = []
        if self._file is not None and self._file.faults:
            shown = [f"{self.location}:{fault.line}: {fault.what}" for fault in self._file.faults]
            found = shown[:_SHOWN] + (
                [f"{self.location}: and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
            )
            if self._file.kept is not None:
                saved = len(self._file.saved)
                also = (
                    f"; {saved} results that lost their place are used when they are asked for again" if saved else ""
                )
                found.append(
                    f"{self.location}: mended; as it was it is kept as {self._file.kept.name}{also}. What is lost is "
                    "scored again"
                )
            else:
                found.append(f"{self.location}: `evolve run` mends it, and scores again what is lost")
        if self._strays:
            found.append(f"{self.location}: {self._strays} trials are not of this search, and are left out")
        return found

    def saved(self) -> list[tuple[Mapping[str, Any], Evaluation]]:
        """Recipes and what they scored, of trials that lost their place with a line before them."""
        notes = self._notes()
        kept = [notes[key] for key in notes if key.startswith(_SAVED)]
        return [(found["trial"]["recipe"], evaluation_from_json(-1, found["result"])) for found in kept]

    def begin_anew(self) -> None:
        """Begin a search without trials; what there is stays in the journal, as a study of its own."""
        directions = self._storage.get_study_directions(self._study_id)
        name = study_name(len(_generations(self._storage)))
        self._study_id = self._storage.create_new_study(directions, name)
        self._ids = []
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
        header = self.header
        notes = {
            "search_seconds": self.noted("search_seconds", 0.0),
            "budget": header.get("config", {}).get("budget", {}),
            "command": self.noted("command", {}),
            "faults": self.notes if self._tally is None else (),  # a file that is written is mended
        }
        tally = self._tally or self._counted()
        for number in told:
            if 0 <= number < len(self._ids):
                tally.tell(self.trial(number))
        return tally.standing(self._place, notes)

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

    def _place(self, number: int) -> int | None:
        proposal = self._storage.get_trial(self._ids[number]).user_attrs[PROPOSAL]
        return proposal.offset if isinstance(proposal, Place) else None

    def _keep_standing(self) -> None:
        """From now on, have how the run stands beside the file, unless it cannot say what the file does."""
        if self._file is None or self._strays or StandingFile(self._file.path).is_foreign:
            return
        with _reading(self.location):
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
        return dict(notes.get("header") or notes.get(_COPY) or {})

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
        with _reading(self.location):
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
        with _reading(self.location):
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
            if trial.number != len(self._ids):
                raise JournalError(
                    f"{self.location}: trial {trial.number} would be numbered {len(self._ids)}: another process writes "
                    "this journal. End it, and run the same command again"
                )
            self._add(trial, distributions)
        self._count(*(functools.partial(Tally.begin, trial=trial) for trial in trials))

    def _add(self, trial: Trial, distributions: Mapping[str, BaseDistribution]) -> None:
        with warnings.catch_warnings():
            # A float that is not on Optuna's grid to the last digit; the vector is what counts.
            warnings.simplefilter("ignore")
            frozen = create_trial(
                state=TrialState.WAITING,  # its time begins when a worker takes it
                params=dict(trial.genes),
                distributions={name: distributions[name] for name in trial.genes},
                user_attrs={
                    "kind": trial.kind.value,
                    "label": writable(trial.label),
                    PROPOSAL: writable(proposal_to_json(trial)),
                },
            )
        self._ids.append(self._storage.create_new_trial(self._study_id, frozen))

    def start(self, number: int) -> None:
        """Note that a worker takes a trial, unless one has before."""
        if self._start(self._ids[number]):
            self._count()

    def _start(self, identity: int) -> bool:
        is_new = self._storage.get_trial(identity).state is TrialState.WAITING
        if is_new:
            self._storage.set_trial_state_values(identity, TrialState.RUNNING)
        return is_new

    def finish(self, trial: Trial) -> None:
        """Write a trial's result; that of one that had failed and was tried again takes the failure's place.

        What Optuna's users sort by stands beside it as attributes. To Optuna a parent or the uniform merge, which
        nobody proposed, is pruned: `study.best_trial` is the search's own.
        """
        identity, result = self._ids[trial.number], writable(result_to_json(trial))
        if self._storage.get_trial(identity).state.is_finished():  # which Optuna keeps as it is
            before = self.trial(trial.number)
            self._set(f"{_AGAIN}{trial.number}", result)
            self._count(lambda tally: tally.finish(trial, before))
            return
        with self._file.one_write() if self._file is not None else nullcontext():
            self._start(identity)  # of a recipe that was scored before, nothing is left to a worker
            for name, value in _attributes(trial).items():
                self._storage.set_trial_user_attr(identity, name, writable(value))
            self._storage.set_trial_user_attr(identity, RESULT, result)
            if trial.objective is None or trial.is_reference:
                stopped = trial.state is State.STOPPED or trial.objective is not None
                self._storage.set_trial_state_values(identity, TrialState.PRUNED if stopped else TrialState.FAIL)
            else:
                values = trial.objective_values or (trial.objective,)
                self._storage.set_trial_state_values(identity, TrialState.COMPLETE, values)
        self._count(lambda tally: tally.finish(trial))

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return list(self)

    def __iter__(self) -> Iterator[Trial]:
        """Every trial, by number, one at a time in memory."""
        notes = self._notes()
        with _reading(self.location):
            for number, record in enumerate(self._frozen()):
                yield self._read(number, record, notes.get(f"{_AGAIN}{number}"))

    def trial(self, number: int) -> Trial:
        """The trial of a number that there is."""
        with _reading(self.location):
            if number >= len(self._ids):  # another process writes
                self._ids = [frozen._trial_id for frozen in self._frozen()]
            record = self._storage.get_trial(self._ids[number])
            return self._read(number, record, self._notes().get(f"{_AGAIN}{number}"))

    def _read(self, number: int, frozen: FrozenTrial, again: Mapping[str, Any] | None) -> Trial:
        proposal, genes, result = frozen.user_attrs[PROPOSAL], frozen.params, again
        if isinstance(proposal, Place) and self._file is not None:
            operation = self._file.operation_at(proposal)
            proposal, genes = operation["user_attrs"][PROPOSAL], _genes(operation)
        # A kill between the result and the state leaves the result whole: the trial counts as running and is scored
        # again.
        if result is None and frozen.state.is_finished():
            result = frozen.user_attrs.get(RESULT)
            if isinstance(result, Place) and self._file is not None:
                result = self._file.operation_at(result)["user_attr"][RESULT]
        return trial_from_json(number, dict(genes), proposal, result)

    def _frozen(self) -> list[FrozenTrial]:
        """Optuna's records of this search's trials; another program's are counted, and left out."""
        found = self._storage.get_all_trials(self._study_id, deepcopy=False)
        own = [frozen for frozen in found if PROPOSAL in frozen.user_attrs]
        self._strays = len(found) - len(own)
        return own


def _attributes(trial: Trial) -> dict[str, Any]:
    """What is known of a finished trial, one plain value each, as columns of a table of trials."""
    measured = trial.measured
    found: dict[str, Any] = {
        "state": trial.state.value,
        "seconds": measured.total_seconds,
        "items": measured.item_count,
    }
    found |= {} if trial.objective is None else {"objective": trial.objective}
    found |= {f"score.{name}": score for name, score in trial.task_scores.items()}
    found |= {f"constraint.{name}": value for name, value in measured.constraints.items()}
    return found | ({} if measured.failure is None else {"failure": measured.failure})


@contextmanager
def _reading(location: str) -> Iterator[None]:
    """Whatever Optuna, its database and our decoders raise on records that they cannot read is one kind of error."""
    try:
        yield
    except JournalError:
        raise
    except _unreadable() as error:
        missing = _missing_driver(error)
        install = f"needs {missing}. pip install '{DRIVERS.get(missing, missing)}'"
        reason = install if missing else without_password(error_lines(error)[0])
        raise JournalError(f"storage: {without_password(location)}: cannot be opened: {reason}") from error


def _missing_driver(error: BaseException) -> str:
    """The module that a kind of database is spoken to by, where that is what is not installed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name
        cause = cause.__cause__ or cause.__context__
    return ""


def _unreadable() -> tuple[type[Exception], ...]:
    """What they raise. The library under databases is not imported for it: that takes long, and a file does without."""
    common = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, TypeError, ValueError)
    library = sys.modules.get("sqlalchemy.exc")
    return common if library is None else (*common, library.SQLAlchemyError)


def _file_storage(file: JournalFile) -> BaseStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(file)


def _generations(storage: BaseStorage) -> list[int]:
    """The ids of our studies, the latest last: a search that was begun anew has earlier ones."""
    ids = {study.study_name: study._study_id for study in storage.get_all_studies()}
    return [ids[name] for name in itertools.takewhile(ids.__contains__, map(study_name, itertools.count()))]


def _genes(creation: Mapping[str, Any]) -> dict[str, Any]:
    """Gene name -> value, of the creation of a trial in Optuna's format."""
    distributions = {name: _distribution(text) for name, text in creation["distributions"].items()}
    return {name: distributions[name].to_external_repr(value) for name, value in creation["params"].items()}


@functools.lru_cache(maxsize=10_000)
def _distribution(text: str) -> BaseDistribution:
    """All trials of a search have the same."""
    return json_to_distribution(text)
