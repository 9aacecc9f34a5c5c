"""Trials on disk, in Optuna's storage: the only state a resume needs, and open to Optuna's dashboard and exports."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from evolve.trial import Evaluation, ItemScores, Kind, State, Trial

STUDY = "evolve"
FILE_NAME = "journal.log"

optuna.logging.set_verbosity(optuna.logging.WARNING)


class JournalError(ValueError):
    """The journal cannot be used as it is."""


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
        """Opens a journal file, or any Optuna storage URL (`sqlite:///...`); a new one for so many objectives.

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
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise JournalError(f"storage: {location}: cannot be opened: {reason}") from None
        return cls(study)

    @property
    def header(self) -> dict[str, Any]:
        """What was written by `write_header`; empty for a new journal."""
        return dict(self._study.user_attrs.get("header", {}))

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Keeps the resolved configuration, item ids and versions with the trials."""
        self._study.set_user_attr("header", dict(header))

    def note(self, key: str, value: Any) -> None:
        """Keeps a JSON value, replacing an earlier one."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str, default: Any = None) -> Any:
        """A value kept by `note`."""
        return self._study.user_attrs.get(key, default)

    def begin(self, trials: Sequence[Trial], distributions: Sequence[Mapping[str, BaseDistribution]]) -> None:
        """Writes a batch as running, in order; their numbers must continue the journal's.

        Args:
            trials: without results.
            distributions: for each trial, gene name -> Optuna distribution.
        """
        for trial, shapes in zip(trials, distributions, strict=True):
            about = {
                "kind": trial.kind.value,
                "label": trial.label,
                "batch": trial.batch,
                "vector": list(trial.vector) if trial.vector is not None else None,
                "recipe": dict(trial.recipe),
            }
            number = self._add(trial, shapes, about)
            if number != trial.number:
                raise JournalError(f"trial {trial.number} was numbered {number}: another process writes this journal")

    def _add(self, trial: Trial, shapes: Mapping[str, BaseDistribution], about: Mapping[str, Any]) -> int:
        with warnings.catch_warnings():
            # A float that is not on Optuna's grid to the last digit; the vector is what counts.
            warnings.simplefilter("ignore")
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=dict(trial.genes),
                    distributions=dict(shapes),
                    user_attrs={"trial": dict(about)},
                )
            )
        return len(self._study.get_trials(deepcopy=False)) - 1

    def finish(self, trial: Trial) -> None:
        """Writes a trial's result. Afterwards it is never evaluated again."""
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        handle = optuna.Trial(self._study, frozen._trial_id)
        handle.set_user_attr(
            "result",
            {
                "scores": to_json(trial.scores),
                "signals": to_json(trial.signals),
                "task_scores": dict(trial.task_scores),
                "objective": trial.objective,
                "objectives": trial.objectives,
                "guide": trial.guide,
                "skipped": to_json(trial.skipped),
                "constraints": dict(trial.constraints),
                "violations": dict(trial.violations),
                "failure": trial.failure,
                "merge_seconds": trial.merge_seconds,
                "forward_seconds": trial.forward_seconds,
                "total_seconds": trial.total_seconds,
            },
        )
        if trial.objective is None:
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, trial.objectives or trial.objective)

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return [_read(frozen) for frozen in self._study.get_trials(deepcopy=False)]


def _storage(location: str) -> BaseStorage | str:
    if "://" in location:
        return location
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(JournalFileBackend(location))


def _mend(location: str) -> None:
    """Removes what a killed process left: a torn last line, and Optuna's lock, which it would wait 30 s for."""
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


def _read(frozen: FrozenTrial) -> Trial:
    about = frozen.user_attrs["trial"]
    result = frozen.user_attrs.get("result", {})
    # A kill between the result and the state leaves the result whole: the trial counts as running and is scored again.
    states = {TrialState.COMPLETE: State.COMPLETE, TrialState.FAIL: State.FAILED}
    state = states.get(frozen.state, State.RUNNING)
    if state is State.RUNNING:
        result = {}
    if result.get("violations"):
        state = State.INFEASIBLE
    # Journals from before there were several objectives or signals hold one number, which was told, too.
    alone = frozen.values[0] if frozen.values and len(frozen.values) == 1 else None
    guide = result.get("guide", alone)
    return Trial(
        number=frozen.number,
        kind=Kind(about["kind"]),
        label=about["label"],
        batch=about["batch"],
        recipe=about["recipe"],
        state=state,
        vector=tuple(about["vector"]) if about["vector"] is not None else None,
        genes=dict(frozen.params),
        scores=from_json(result.get("scores", {})),
        signals=from_json(result.get("signals", {})),
        task_scores=result.get("task_scores", {}),
        objective=result.get("objective", alone) if state is State.COMPLETE else None,
        objectives=tuple(result.get("objectives", ())) if state is State.COMPLETE else (),
        guide=tuple(guide) if isinstance(guide, list) else guide,
        skipped=from_json(result.get("skipped", {})),
        constraints=result.get("constraints", {}),
        violations=result.get("violations", {}),
        failure=result.get("failure"),
        merge_seconds=result.get("merge_seconds", 0.0),
        forward_seconds=result.get("forward_seconds", 0.0),
        total_seconds=result.get("total_seconds", 0.0),
    )


def to_json(scores: ItemScores) -> dict[str, Any]:
    """Item scores or signals with their item ids as data: JSON has no integer keys."""
    return {task: {"items": list(values), "values": list(values.values())} for task, values in scores.items()}


def from_json(kept: Mapping[str, Any]) -> dict[str, dict[int, Any]]:
    """What `to_json` was given."""
    return {task: dict(zip(entry["items"], entry["values"], strict=True)) for task, entry in kept.items()}


_BY_ITEM = ("scores", "signals", "skipped")  # fields of an evaluation that have item ids in them


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """A result that waits to be judged, as data."""
    fields = vars(evaluation)
    return {**fields, **{name: to_json(fields[name]) for name in _BY_ITEM if fields[name] is not None}}


def evaluation_from_json(kept: Mapping[str, Any]) -> Evaluation:
    """What `evaluation_to_json` was given."""
    return Evaluation(**{**kept, **{name: from_json(kept[name]) for name in _BY_ITEM if kept[name] is not None}})


def evaluation_of(trial: Trial) -> Evaluation:
    """What was found out about a trial that is finished."""
    return Evaluation(
        trial.number,
        scores=trial.scores if trial.failure is None else None,
        signals=trial.signals,
        skipped=trial.skipped,
        constraints=trial.constraints,
        violations=trial.violations,
        failure=trial.failure,
    )


def finished(
    trial: Trial,
    evaluation: Evaluation,
    task_scores: Mapping[str, float],
    objective: float | None,
    guide: float | tuple[float, ...] | None = None,
    objectives: tuple[float, ...] = (),
) -> Trial:
    """The trial with its result filled in; without a `guide` the optimizer is told the objective."""
    state = State.COMPLETE
    if evaluation.scores is None:
        state = State.FAILED
    elif evaluation.violations:
        state = State.INFEASIBLE
    return replace(
        trial,
        state=state,
        scores=evaluation.scores or {},
        signals=evaluation.signals if evaluation.scores is not None else {},
        task_scores=task_scores if evaluation.scores is not None else {},
        objective=objective if state is State.COMPLETE else None,
        objectives=objectives if state is State.COMPLETE else (),
        guide=objective if guide is None and state is State.COMPLETE else guide,
        skipped=evaluation.skipped,
        constraints=evaluation.constraints,
        violations=evaluation.violations if evaluation.scores is not None else {},
        failure=evaluation.failure,
        merge_seconds=evaluation.merge_seconds,
        forward_seconds=evaluation.forward_seconds,
        total_seconds=evaluation.total_seconds,
    )
