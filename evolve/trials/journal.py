"""Trials on disk, in Optuna's storage: the only state a resume needs, and open to Optuna's dashboard and exports."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from evolve.problems import error_lines
from evolve.trials.step import Step
from evolve.trials.trial import Evaluation, State, Trial
from evolve.trials.trial_record import (
    evaluation_from_json,
    evaluation_to_json,
    held_out_of_0_1_0,
    proposal_to_json,
    result_to_json,
    trial_from_json,
)

STUDY = "evolve"
FILE_NAME = "journal.log"

_AGAIN = "again:"  # results of trials that had failed
_STEP = "gradient_step:"

optuna.logging.set_verbosity(optuna.logging.WARNING)


class JournalError(ValueError):
    """The journal cannot be used as it is."""


class Stage(StrEnum):
    """For which evaluations are kept that are not the result of a trial."""

    REFERENCES = "reference"  # whose parents set the scale: recorded when all of them are scored
    RACE = "race"  # rounds of a race that is not over
    LOOK = "look"  # at a point of the gradient start, on some of the items
    VALIDATION = "validation"  # on the held-out items


class Journal:
    """The study of one run. One process writes; any number may read.

    A trial is numbered when its batch begins, so numbers follow the order of asking and not of finishing.

    Example:
        >>> journal = Journal.open("runs/demo/journal.log")
        >>> [trial.objective for trial in journal.trials()]
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    @classmethod
    def open(cls, location: str, create: bool = False, objectives: int = 1) -> Journal:
        """Open a journal file, or any Optuna storage URL (`sqlite:///...`); a new one for so many objectives.

        Raises:
            JournalError: there is none and `create` is false, or it cannot be read.
        """
        try:
            if "://" not in location and not create and not Path(location).is_file():
                raise JournalError(f"{location}: no journal there. Is this the output directory of a run?")
            if create:
                _mend(location)
            storage = _storage(location)
            if create:
                study = optuna.create_study(
                    storage=storage, study_name=STUDY, directions=["maximize"] * objectives, load_if_exists=True
                )
            else:
                study = optuna.load_study(storage=storage, study_name=STUDY)
        except (KeyError, OSError, json.JSONDecodeError, ImportError, SQLAlchemyError) as error:
            raise JournalError(f"storage: {location}: cannot be opened: {error_lines(error)[0]}") from None
        return cls(study)

    @property
    def header(self) -> dict[str, Any]:
        """What was written by `write_header`; empty for a new journal."""
        return dict(self._study.user_attrs.get("header", {}))

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Keep the resolved configuration, item ids and versions with the trials."""
        self._study.set_user_attr("header", dict(header))

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value, replacing an earlier one."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str, default: Any = None) -> Any:
        """A value kept by `note`."""
        return self._study.user_attrs.get(key, default)

    def keep(self, stage: Stage, evaluation: Evaluation) -> None:
        """Keep an evaluation that is not a trial's result, or not yet."""
        self.note(f"{stage}:{evaluation.number}", evaluation_to_json(evaluation))

    def kept(self, stage: Stage) -> dict[int, Evaluation]:
        """Trial number -> evaluation, of all that were kept for this stage."""
        notes = self._study.user_attrs
        found = held_out_of_0_1_0(notes) if stage is Stage.VALIDATION else {}
        prefix = f"{stage}:"
        for key in notes:
            if key.startswith(prefix):
                number = int(key.removeprefix(prefix))
                found[number] = evaluation_from_json(number, notes[key])
        return found

    def keep_step(self, step: Step) -> None:
        """Keep a step of the gradient start."""
        self.note(f"{_STEP}{step.number}", {name: value for name, value in asdict(step).items() if name != "number"})

    def steps(self) -> dict[int, Step]:
        """Number -> step, of all that were kept."""
        notes = self._study.user_attrs
        found = {int(key.removeprefix(_STEP)): notes[key] for key in notes if key.startswith(_STEP)}
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
            number = self._add(trial, distributions)
            if number != trial.number:
                raise JournalError(f"trial {trial.number} was numbered {number}: another process writes this journal")

    def _add(self, trial: Trial, distributions: Mapping[str, BaseDistribution]) -> int:
        with warnings.catch_warnings():
            # A float that is not on Optuna's grid to the last digit; the vector is what counts.
            warnings.simplefilter("ignore")
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=dict(trial.genes),
                    distributions={name: distributions[name] for name in trial.genes},
                    user_attrs={"trial": proposal_to_json(trial)},
                )
            )
        return len(self._study.get_trials(deepcopy=False)) - 1

    def finish(self, trial: Trial) -> None:
        """Write a trial's result; that of one that had failed and was tried again takes the failure's place."""
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        if frozen.state.is_finished():  # which Optuna keeps as it is
            self.note(f"{_AGAIN}{trial.number}", result_to_json(trial))
            return
        optuna.Trial(self._study, frozen._trial_id).set_user_attr("result", result_to_json(trial))
        if trial.objective is None:
            state = TrialState.PRUNED if trial.state is State.STOPPED else TrialState.FAIL
            self._study.tell(trial.number, state=state)
        else:
            self._study.tell(trial.number, trial.objective_values or trial.objective)

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        notes = self._study.user_attrs
        return [
            _read(frozen, notes.get(f"{_AGAIN}{frozen.number}")) for frozen in self._study.get_trials(deepcopy=False)
        ]


def _storage(location: str) -> BaseStorage | str:
    if "://" in location:
        return location
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(JournalFileBackend(location))


def _mend(location: str) -> None:
    """Remove what a killed process left: a torn last line, and Optuna's lock, which it would wait 30 s for."""
    if "://" in location:
        return
    for suffix in (".lock", ".lock.rename"):
        Path(location + suffix).unlink(missing_ok=True)
    path = Path(location)
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _read(frozen: FrozenTrial, again: Mapping[str, Any] | None) -> Trial:
    # A kill between the result and the state leaves the result whole: the trial counts as running and is scored again.
    result = again or (frozen.user_attrs["result"] if frozen.state.is_finished() else None)
    return trial_from_json(frozen.number, dict(frozen.params), frozen.user_attrs["trial"], result)
