"""How a run stands, in a small file beside its journal: what `evolve status` tells without reading a long one.

It belongs to a journal of one length and checksum, and is believed of no other. Nothing rests on it: a run that goes on
reads the journal alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from evolve.trials.journal_lines import is_sealed, sealed

FORMAT = 1
"""Of the file. Another one is not believed: what a field means may have changed."""

_LARGEST = 16 << 20  # bytes of one that is read
_PART = 1 << 20
_TRIES, _PAUSE = 3, 0.02  # seconds: the run writes the journal first, then this


@dataclass(frozen=True)
class Scored:
    """A trial that has an objective.

    Attributes:
        number: of the trial.
        label: of the trial.
        objective: on the search items.
        objective_values: of a Pareto search, one for each objective.
        task_scores: task name -> score.
        place: where in the journal's file the line begins that proposed it, in bytes; None in a database.
    """

    number: int
    label: str
    objective: float
    objective_values: tuple[float, ...] = ()
    task_scores: Mapping[str, float] = field(default_factory=dict)
    place: int | None = None


@dataclass(frozen=True)
class Standing:
    """What is told of a run, finished or not.

    Attributes:
        candidates: how many are scored, or failed.
        failed: of these.
        infeasible: of these.
        stopped: of these, by a race.
        last_failure: label and reason of the latest candidate that failed.
        references: label -> objective; None where there is none.
        failed_references: label -> why it could not be scored.
        steps: of the gradient.
        failed_steps: of these.
        step_failure: why the first of them did.
        looks: points that were scored on some of the items.
        spent: purpose -> item evaluations.
        best: number of the best candidate.
        best_reference: number of the best of the others.
        scored: number -> trial: these two, and what was scored on held-out items.
        search_seconds: that the search took, over all its runs.
        budget: of the search, as its file says.
        command: what goes on with it: line and directory.
        faults: what is wrong with the journal, and is left out.
    """

    candidates: int
    failed: int
    infeasible: int
    stopped: int
    last_failure: str | None
    references: Mapping[str, float | None]
    failed_references: Mapping[str, str]
    steps: int
    failed_steps: int
    step_failure: str | None
    looks: int
    spent: Mapping[str, int]
    best: int | None
    best_reference: int | None
    scored: Mapping[int, Scored]
    search_seconds: float
    budget: Mapping[str, Any]
    command: Mapping[str, Any]
    faults: Sequence[str] = ()

    @property
    def best_scored(self) -> Scored | None:
        """The best candidate."""
        return None if self.best is None else self.scored[self.best]

    @property
    def best_reference_scored(self) -> Scored | None:
        """The best of parents and uniform merge."""
        return None if self.best_reference is None else self.scored[self.best_reference]

    @property
    def lasting_failures(self) -> list[str]:
        """What failed and is not tried again, since what came after it rests on that, a line each, with a way out."""
        failed = [f"{label} failed and is not scored again: {why}" for label, why in self.failed_references.items()]
        if self.failed_steps:
            count = f"{self.failed_steps} of {self.steps} steps of the gradient"
            failed.append(f"{count} failed and are not made again: {self.step_failure}")
        way_out = "Fix that, then start over with another --output or with --from"
        return [f"{line}. {way_out}" for line in failed] if self.candidates or self.failed_steps else []

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return {**vars(self), "scored": [vars(trial) for trial in self.scored.values()]}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` was given."""
        trials = [Scored(**{**found, "objective_values": tuple(found["objective_values"])}) for found in kept["scored"]]
        values = {one.name: kept[one.name] for one in fields(cls)}
        return cls(**{**values, "scored": {trial.number: trial for trial in trials}})


class StandingFile:
    """The file beside a journal.

    Args:
        journal: the journal's file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal.resolve()
        self.path = self._journal.with_name(f".{journal.resolve().name}.standing")
        self._new = self.path.with_name(f"{self.path.name}.new")

    @property
    def is_foreign(self) -> bool:
        """Whether something that no run wrote has its name; that is never written over."""
        if self.path.is_symlink() or self._new.is_symlink():
            return True
        return os.path.lexists(self.path) and self._content() is None and not self._is_empty()

    def write(self, standing: Standing, length: int, checksum: int) -> None:
        """Put what belongs to a journal of so many bytes in the place of what there was.

        A disk that takes nothing, or a loss of power, costs the file alone: an outdated or torn one is not believed.
        """
        content = {"standing": FORMAT, "bytes": length, "journal_crc32": checksum, **standing.to_json()}
        with contextlib.suppress(OSError):
            self._new.write_bytes(sealed(content, 0))
            self._new.replace(self.path)

    def read(self) -> Standing | None:
        """How the run stands; None where the file is not of the journal as it is, to the last byte."""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE)
            content = self._content()
            if content is None:
                return None
            with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
                if _length_and_checksum(self._journal) == (content["bytes"], content["journal_crc32"]):
                    return Standing.from_json(content)
                if self._journal.stat().st_size > content["bytes"]:
                    continue  # just written to
            return None
        return None

    def recipe(self, trial: Scored) -> Mapping[str, Any] | None:
        """What a trial of a standing that was read merges; None where the journal does not say it there."""
        if trial.place is None:
            return None
        with contextlib.suppress(OSError, LookupError, TypeError, ValueError), self._journal.open("rb") as file:
            file.seek(trial.place)
            recipe: Mapping[str, Any] = json.loads(file.readline())["user_attrs"]["trial"]["recipe"]
            return recipe
        return None

    def _content(self) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if (
                self.path.is_file()
                and self.path.stat().st_size <= _LARGEST
                and is_sealed(text := self.path.read_bytes().strip())
            ):
                found = json.loads(text)
                return found if isinstance(found, dict) and found.get("standing") == FORMAT else None
        return None

    def _is_empty(self) -> bool:
        """Whether a loss of power left the name alone."""
        return self.path.is_file() and not self.path.stat().st_size


def _length_and_checksum(file: Path) -> tuple[int, int]:
    length, checksum = 0, 0
    if not file.is_file():
        raise FileNotFoundError(file)  # a pipe, say, which might be read for ever
    with file.open("rb") as stream:
        while part := stream.read(_PART):
            length, checksum = length + len(part), zlib.crc32(part, checksum)
    return length, checksum
