"""What a sweep of recipes has scored, kept on disk from result to result, so that a killed sweep goes on."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.problems import ConfigError
from evolve.trials.trial import Evaluation
from evolve.trials.trial_record import evaluation_from_json, evaluation_to_json
from merge_core.atomic_output import write_atomically, writing

FILE_NAME = "sweep.jsonl"
_CHECKSUM = "crc32"


class ScoreStore:
    """A file with a line for what it is of, then one for every result; the last one of a key counts.

    Args:
        directory: where the file is.
        content: what the scores depend on, beside each one's key.

    Raises:
        ConfigError: the file is of another sweep, or none at all.
    """

    def __init__(self, directory: Path, content: Mapping[str, Any]) -> None:
        self._file = directory / FILE_NAME
        self._kept: dict[str, Any] = {}
        head = json.dumps({"sweep": content}, sort_keys=True)
        if not self._file.exists():
            write_atomically(self._file, head + "\n")
            return
        first, *lines = self._file.read_text(encoding="utf-8", errors="replace").split("\n")
        if first != head:
            raise ConfigError(
                f"{self._file}: is of a sweep over other models, tasks, items, code or versions. Name another "
                "--output, or remove it"
            )
        damaged = 0
        for line in lines[:-1]:  # what follows the last line's end was being written when the process died
            try:
                entry = json.loads(line)
                if entry.pop(_CHECKSUM, None) not in (None, _checksum(entry)):  # an earlier version wrote none
                    raise ValueError
                evaluation_from_json(0, entry["evaluation"])
                self._kept[entry["key"]] = entry["evaluation"]
            except (ValueError, KeyError, TypeError, AttributeError):
                damaged += 1
        if damaged:
            told = f"{damaged} damaged line{'' if damaged == 1 else 's'}, of which the results are scored again"
            print(f"warning: {self._file}: {told}", file=sys.stderr)
        if lines and lines[-1]:
            whole = "\n".join([first, *lines[:-1]]) + "\n"
            write_atomically(self._file, whole)

    def keep(self, key: str, evaluation: Evaluation) -> None:
        """Add a result; a failure is not kept, so that it is tried again by the next run."""
        if evaluation.failure is None:
            self._kept[key] = evaluation_to_json(evaluation)
            entry = {"key": key, "evaluation": self._kept[key]}
            with writing(self._file), self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**entry, _CHECKSUM: _checksum(entry)}) + "\n")

    def kept(self, key: str) -> Evaluation | None:
        """The result of a key, as it was kept."""
        return evaluation_from_json(0, self._kept[key]) if key in self._kept else None


def _checksum(entry: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(entry).encode()):08x}"
