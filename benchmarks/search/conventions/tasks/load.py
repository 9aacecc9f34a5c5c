"""Give lm-eval the items next to this file; a function is found relative to its YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset


def items(skill: str, **_metadata: Any) -> dict[str, Dataset]:
    """Load `<skill>.jsonl` as the split `test`. Further keyword arguments are lm-eval's own metadata."""
    lines = (Path(__file__).parent / f"{skill}.jsonl").read_text("utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
