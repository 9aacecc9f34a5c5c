"""The trials of a study as Optuna's storage keeps them: what each is, what it scored, and its state there."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution, json_to_distribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from evolve.trials.clean_text import writable
from evolve.trials.journal_file import JournalFile
from evolve.trials.journal_lines import PROPOSAL, RESULT, Place
from evolve.trials.trial import State, Trial
from evolve.trials.trial_record import proposal_to_json, trial_from_json

Again = Callable[[int], Mapping[str, Any] | None]
"""Number of a trial -> its result, where it had failed and was tried again."""


class StudyTrials:
    """Trials by number. Those of other programs in the same study have none.

    Args:
        storage: where they are.
        study_id: of the study.
        file: that the storage reads, if it is one; then Optuna's records say where in it a trial is, and not what.

    Attributes:
        strays: how many are another program's.
    """

    def __init__(self, storage: BaseStorage, study_id: int, file: JournalFile | None) -> None:
        self._storage = storage
        self._study_id = study_id
        self._file = file
        self.strays = 0
        self._ids: list[int] = []
        self._refresh()

    def __len__(self) -> int:
        return len(self._ids)

    def _refresh(self) -> list[FrozenTrial]:
        found = self._storage.get_all_trials(self._study_id, deepcopy=False)
        own = [frozen for frozen in found if PROPOSAL in frozen.user_attrs]
        self.strays = len(found) - len(own)
        self._ids = [frozen._trial_id for frozen in own]
        return own

    def add(self, trial: Trial, distributions: Mapping[str, BaseDistribution]) -> None:
        """Write a trial as waiting for a worker.

        Args:
            trial: without a result.
            distributions: gene name -> Optuna distribution.
        """
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

    def start(self, number: int) -> bool:
        """Have a trial running; whether it was waiting until now."""
        is_new = self._storage.get_trial(self._ids[number]).state is TrialState.WAITING
        if is_new:
            self._storage.set_trial_state_values(self._ids[number], TrialState.RUNNING)
        return is_new

    def is_finished(self, number: int) -> bool:
        """Whether it has a result, which Optuna keeps as it is."""
        return bool(self._storage.get_trial(self._ids[number]).state.is_finished())

    def finish(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Write a trial's result.

        What Optuna's users sort by stands beside it as attributes. To Optuna a parent or the uniform merge, which
        nobody proposed, is pruned: `study.best_trial` is the search's own.

        Args:
            trial: with it.
            result: as JSON.
        """
        identity = self._ids[trial.number]
        with self._file.one_write() if self._file is not None else nullcontext():
            self.start(trial.number)  # of a recipe that was scored before, nothing is left to a worker
            for name, value in _attributes(trial).items():
                self._storage.set_trial_user_attr(identity, name, writable(value))
            self._storage.set_trial_user_attr(identity, RESULT, result)
            if trial.objective is None or trial.is_reference:
                stopped = trial.state is State.STOPPED or trial.objective is not None
                self._storage.set_trial_state_values(identity, TrialState.PRUNED if stopped else TrialState.FAIL)
            else:
                values = trial.objective_values or (trial.objective,)
                self._storage.set_trial_state_values(identity, TrialState.COMPLETE, values)

    def trials(self, again: Again) -> Iterator[Trial]:
        """Every trial, by number, one at a time in memory."""
        for number, frozen in enumerate(self._refresh()):
            yield self._decode(number, frozen, again(number))

    def trial(self, number: int, again: Again) -> Trial:
        """The trial of a number."""
        if number >= len(self._ids):  # another process writes
            self._refresh()
        return self._decode(number, self._storage.get_trial(self._ids[number]), again(number))

    def ranges(self, number: int) -> dict[str, tuple[float, float]]:
        """Gene name -> lowest and highest value, of the genes of a trial that are numbers."""
        frozen = self._storage.get_trial(self._ids[number])
        found, proposal = frozen.distributions, frozen.user_attrs[PROPOSAL]
        if isinstance(proposal, Place) and self._file is not None:
            found = _distributions(self._file.operation_at(proposal))
        return {
            name: (float(one.low), float(one.high))
            for name, one in found.items()
            if isinstance(one, FloatDistribution | IntDistribution)
        }

    def last_change(self) -> datetime | None:
        """When the last trial ended or began; None before the first."""
        found = [frozen.datetime_complete or frozen.datetime_start for frozen in self._refresh()]
        return max((moment for moment in found if moment is not None), default=None)

    def offset(self, number: int) -> int | None:
        """Where in the file the line is that proposed a trial; None in a database."""
        proposal = self._storage.get_trial(self._ids[number]).user_attrs[PROPOSAL]
        return proposal.offset if isinstance(proposal, Place) else None

    def _decode(self, number: int, frozen: FrozenTrial, again: Mapping[str, Any] | None) -> Trial:
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


def _genes(creation: Mapping[str, Any]) -> dict[str, Any]:
    """Gene name -> value, of the creation of a trial in Optuna's format."""
    distributions = _distributions(creation)
    return {name: distributions[name].to_external_repr(value) for name, value in creation["params"].items()}


def _distributions(creation: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    return {name: _distribution(text) for name, text in creation["distributions"].items()}


@functools.lru_cache(maxsize=10_000)
def _distribution(text: str) -> BaseDistribution:
    """All trials of a search have the same."""
    return json_to_distribution(text)
