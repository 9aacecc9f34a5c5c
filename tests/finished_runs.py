"""What two runs of one search have in common when nothing is told apart by how long things took."""

from __future__ import annotations

import csv
import json
from pathlib import Path


def trials(output: Path) -> list[dict[str, str]]:
    """The rows of a run's table."""
    with (output / "trials.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(file)]


def fingerprint(output: Path) -> str:
    """That of a run's model."""
    found: str = json.loads((output / "run.json").read_text())["fingerprint"]
    return found
