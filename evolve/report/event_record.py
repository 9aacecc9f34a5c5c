"""Events as plain data, and back: the lines of `evolve run --json`, and those that `evolve watch` follows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from evolve.trials.events import Event, PointLookedAt, RunFinished, RunStarted, SearchStopped, StopReason, TrialFinished
from evolve.trials.trial import Trial


def event_name(kind: type[Event]) -> str:
    """ "trial_finished" of `TrialFinished`."""
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in kind.__name__).removeprefix("_")


KINDS: dict[str, type[Event]] = {event_name(kind): kind for kind in get_args(Event)}
"""Name → kind of event."""

# In full, where other trials are number, label and objective.
_IN_FULL = {(TrialFinished, "trial"), (RunFinished, "best")}


def event_record(event: Event) -> dict[str, Any]:
    """The event as data: its name under "event", then its fields.

    Trials come without recipe and item scores, points without their place, and those of a resumed run as their number.
    """
    record: dict[str, Any] = {"event": event_name(type(event))}
    for name, value in vars(event).items():
        if isinstance(event, PointLookedAt) and name == "vector":
            continue
        if isinstance(event, RunStarted) and name == "resumed":
            record["resumed_trials"] = len(value)
        elif isinstance(value, Trial):
            record[name] = _trial_record(value) if (type(event), name) in _IN_FULL else _short_record(value)
        else:
            record[name] = value
    return record


def event_line(event: Event) -> str:
    """The record as one line of JSON; numbers that are not finite are null."""
    return json.dumps(_plain_data(event_record(event)), allow_nan=False)


def event_of(record: Mapping[str, Any], trial: Callable[[int], Trial], resumed: Sequence[Trial] = ()) -> Event | None:
    """The event of a record; None for one that this version does not know.

    Args:
        record: as `event_line` has written it.
        trial: gives the trial of a number.
        resumed: trials of a run that has started.

    Raises:
        LookupError, TypeError, ValueError: it is no whole record, or there is no such trial.
    """
    kind = KINDS.get(record["event"])
    if kind is None:
        return None
    given: dict[str, Any] = {one.name: record[one.name] for one in fields(kind) if one.name in record}
    for name, value in given.items():
        if isinstance(value, Mapping) and "number" in value:
            given[name] = trial(value["number"])
    if kind is RunStarted:
        given |= {"output": Path(given["output"]), "resumed": resumed}
    elif kind is RunFinished:
        given |= {"output": Path(given["output"]), "files": {name: Path(at) for name, at in given["files"].items()}}
    elif kind is SearchStopped:
        given["reason"] = StopReason(given["reason"])
    elif kind is PointLookedAt:
        given["vector"] = ()
    return kind(**given)


def _trial_record(trial: Trial) -> dict[str, Any]:
    measured = trial.measured
    return {
        "number": trial.number,
        "kind": trial.kind.value,
        "label": trial.label,
        "batch": trial.batch,
        "state": trial.state.value,
        "objective": trial.objective,
        "task_scores": trial.task_scores,
        **({"constraints": measured.constraints, "violations": measured.violations} if measured.constraints else {}),
        "genes": trial.genes,
        "failure": measured.failure,
        "merge_seconds": measured.merge_seconds,
        "forward_seconds": measured.forward_seconds,
        "total_seconds": measured.total_seconds,
    }


def _short_record(trial: Trial) -> dict[str, Any]:
    return {"number": trial.number, "label": trial.label, "objective": trial.objective}


def _plain_data(value: Any) -> Any:
    """Only what JSON knows: paths and unknown objects as text, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_data(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)
