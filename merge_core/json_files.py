"""The JSON files of a model directory: configurations, indices, tokenizers."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

from merge_core.errors import MergeError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON map.

    Raises:
        MergeError: it cannot be read, is not JSON, or no map.
    """
    fix = "Fetch or write the file again"
    collecting = gc.isenabled()
    try:
        # A vocabulary is hundreds of thousands of small lists, none of them garbage: looking for some doubles the time.
        gc.disable()
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise MergeError(f"{path}: not JSON: {error}. {fix}") from error
    finally:
        if collecting:
            gc.enable()
    if not isinstance(content, dict):
        raise MergeError(f"{path}: expected a map, got {type(content).__name__}. {fix}")
    return content


def write_json(path: Path, content: object, *, indent: int | None = 2) -> None:
    """Write JSON with a final newline; without ``indent`` on one line, which is much quicker for large files."""
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
