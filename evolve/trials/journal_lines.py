"""The lines of a journal: sealed, so that whatever happened to the file is noticed, and read with what can be saved.

A line is an operation of Optuna's journal format, which ignores what a seal adds: the number of the line, and a
checksum. Creations say beside that which trial or study they create, since Optuna only counts them: without, one that
is lost would move everything after it to another trial.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Optuna's numbers of operations (JournalOperation, which is not public; its journals are read by all its versions).
CREATE_STUDY: Final = 0
SET_STUDY_ATTRIBUTE: Final = 2
CREATE_TRIAL: Final = 4
SET_TRIAL_STATE: Final = 6
SET_TRIAL_ATTRIBUTE: Final = 8
_FINISHED = (1, 2, 3)  # of TrialState: complete, pruned, failed. Importing Optuna for them takes most of a second

FILE_NAME = "journal.log"
STUDY = "evolve"
PROPOSAL, RESULT = "trial", "result"  # attributes of a trial
_UP = 2  # of StudyDirection
_LONGEST_NUMBER = 64  # bits
# What a line may name, far above what is ever written: those before are made up, or kept in mind, where they are lost.
_MOST = {"study_id": 100, "trial_id": 1_000_000, "creates": 1_000_000}
_SEAL = re.compile(rb',"line":(\d+),"crc32":"([0-9a-f]{8})"\}$')


def study_name(number: int) -> str:
    """Of the search, and of those that it was begun anew as."""
    return STUDY if number == 0 else f"{STUDY}-{number + 1}"


def sealed(operation: Mapping[str, Any], number: int) -> bytes:
    """An operation as a line of the journal, its end included."""
    body = json.dumps(operation, separators=(",", ":"))[:-1].encode() + f',"line":{number}'.encode()
    return body + f',"crc32":"{zlib.crc32(body):08x}"}}\n'.encode()


class JournalError(ValueError):
    """The journal cannot be used as it is."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the file, in the place of what it says.

    Attributes:
        offset: where it begins, in bytes.
        operation: what it says, where that is kept at hand.
    """

    offset: int
    operation: dict[str, Any] | None = None


def outline(operation: dict[str, Any], place: Place) -> dict[str, Any]:
    """An operation without what makes a long search large: what a trial is, its genes, and what it scored.

    Optuna keeps all that it is handed in memory, and makes objects of it. These are read when they are asked for.
    """
    if operation["op_code"] == CREATE_TRIAL and PROPOSAL in operation.get("user_attrs", {}):
        return {**operation, "params": {}, "distributions": {}, "user_attrs": {PROPOSAL: place}}
    if operation["op_code"] == SET_TRIAL_ATTRIBUTE and RESULT in operation["user_attr"]:
        return {**operation, "user_attr": {RESULT: place}}
    return operation


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a journal.

    Attributes:
        line: where, from 1.
        what: what was found there, and what is lost by it.
    """

    line: int
    what: str


@dataclass
class LineReader:
    """Reads lines one after another, leaves out what cannot be used, and keeps what that was.

    Attributes:
        objectives: of a study whose creation is lost.
        faults: what is wrong so far.
        next_number: that the next line should have.
        usable_lines: how many could be used so far.
        damaged_lines: how many could not.
        trials: how many trials were created, over all studies.
        studies: how many studies were.
        saved: what is known of trials that cannot keep their places, since the creation of one before them is lost:
            number as it was -> proposal and, where it is known, result.
    """

    objectives: int = 1
    faults: list[Fault] = field(default_factory=list)
    next_number: int = 0
    usable_lines: int = 0
    damaged_lines: int = 0
    trials: int = 0
    studies: int = 0
    saved: dict[int, dict[str, Any]] = field(default_factory=dict)
    _line: int = 0
    _damaged: int = 0  # lines since the last that could be used
    _is_sealed: bool = False
    _trials_written: int = 0  # the lost ones included
    _lost: set[int] = field(default_factory=set)
    _broken_study: int = -1  # where the creation of a trial is lost
    _places: dict[int, int] = field(default_factory=dict)  # trial as written -> as read, where they differ
    _with_result: set[int] = field(default_factory=set)

    def read(self, raw: bytes) -> list[dict[str, Any]]:
        """What a whole line says: its operation, unless that is left out; before it, what is made up for a lost one."""
        self._line += 1
        text = raw.strip(b" \t\r\n\0")
        if not text:
            self._fault("is blank")
            return []
        seal = _SEAL.search(text)
        operation = operation_of(text) if seal is None or _is_whole(text, seal) else None
        if operation is None:
            self._damaged += 1
            self.damaged_lines += 1
            self._fault("is damaged")
            return []
        if seal is None and self._is_sealed:
            self._fault("was written by another program")
            return []
        number = self.next_number + self._damaged if seal is None else int(seal.group(1))
        if number < self.next_number:
            self._fault("was there before")
            return []
        if (missing := number - self.next_number - self._damaged) > 0:
            self._fault(f"comes after {missing} that {'is' if missing == 1 else 'are'} missing")
        self._is_sealed, self.next_number, self._damaged = seal is not None, number + 1, 0
        self.usable_lines += 1
        return self._placed(operation)

    def _placed(self, operation: dict[str, Any]) -> list[dict[str, Any]]:
        """The operation on the trial that it means; nothing where that is lost."""
        code = operation["op_code"]
        if code == CREATE_STUDY:
            self.studies += 1
            return [operation]
        if code == CREATE_TRIAL or "study_id" in operation:
            made_up = [self._study(number) for number in range(self.studies, int(operation.get("study_id", 0)) + 1)]
            self.studies += len(made_up)
            return made_up + (self._creation(operation) if code == CREATE_TRIAL else [operation])
        written = int(operation.get("trial_id", -1))
        if written in self.saved:
            self.saved[written] |= operation.get("user_attr", {})
            return []
        trial = self._places.get(written, written)
        if written in self._lost or not 0 <= trial < self.trials:
            return []
        if "result" in operation.get("user_attr", {}):
            self._with_result.add(trial)
        if code == SET_TRIAL_STATE and operation["state"] in _FINISHED and trial not in self._with_result:
            self._fault("ends a trial whose result is lost")
            return []
        return [{**operation, "trial_id": trial}]

    def _creation(self, operation: dict[str, Any]) -> list[dict[str, Any]]:
        written, study = int(operation.get("creates", self._trials_written)), int(operation.get("study_id", 0))
        if written > self._trials_written:
            self._lost.update(range(self._trials_written, written))
            self._broken_study = study
        self._trials_written = written + 1
        if study == self._broken_study:
            self.saved[written] = dict(operation.get("user_attrs", {}))
            return []
        if written != self.trials:
            self._places[written] = self.trials
        self.trials += 1
        return [operation]

    def _study(self, number: int) -> dict[str, Any]:
        name = study_name(number)
        return {"op_code": CREATE_STUDY, "worker_id": "", "study_name": name, "directions": [_UP] * self.objectives}

    def _fault(self, what: str) -> None:
        self.faults.append(Fault(self._line, what))


def is_sealed(text: bytes) -> bool:
    """Whether a line, without its end, is as `sealed` wrote it."""
    seal = _SEAL.search(text)
    return seal is not None and _is_whole(text, seal)


def _is_whole(text: bytes, seal: re.Match[bytes]) -> bool:
    return zlib.crc32(text[: seal.start(2) - len(b',"crc32":"')]) == int(seal.group(2), 16)


def operation_of(text: bytes) -> dict[str, Any] | None:
    """What a line says, without its seal; None where it is no operation."""
    try:
        found = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("op_code"), int):
        return None
    named = ((found[name], most) for name, most in _MOST.items() if name in found)
    if not all(isinstance(number, int) and 0 <= number <= most for number, most in named):
        return None
    return {key: value for key, value in found.items() if key not in ("line", "crc32")}


def _whole(digits: str) -> int:
    """A whole number that a float can stand for; sums and means are made of it."""
    number = int(digits)
    if number.bit_length() > _LONGEST_NUMBER:
        raise ValueError("no run writes such a number")
    return number
