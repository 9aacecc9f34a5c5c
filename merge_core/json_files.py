"""The JSON files of a model directory: configurations, indices, tokenizers, and the headers of safetensors."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merge_core.bounds import CONFIG_BYTES, DEPTH, VALUES
from merge_core.errors import MergeError
from merge_core.input_files import FETCH, read_file


def read_json(path: Path, most_bytes: int = CONFIG_BYTES, *, repeats: bool = False) -> dict[str, Any]:
    """Read a JSON map.

    Args:
        path: the file.
        most_bytes: what one of its kind may have.
        repeats: take the last of equal keys, as every other reader does of vocabularies; else they are refused.

    Raises:
        MergeError: it cannot be read, is too large or nested too deeply, is not JSON, or no map.
    """
    return parse_json(read_file(path, most_bytes), path, repeats=repeats)


def parse_json(
    text: bytes, where: Path | str, *, repeats: bool = False, parse_constant: Callable[[str], Any] | None = None
) -> dict[str, Any]:
    """As `read_json`, of a text that is part of a file.

    Args:
        text: UTF-8.
        where: the file, for messages.
        repeats: see there.
        parse_constant: takes ``NaN`` and ``Infinity``; they are numbers by default.
    """
    if text.count(b",") + text.count(b"[") + text.count(b"{") > VALUES:
        raise MergeError(f"{where}: more than {VALUES} values, which none of its kind has. {FETCH}")
    collecting = gc.isenabled()
    try:
        # A vocabulary is hundreds of thousands of small lists, none of them garbage: looking for some doubles the time.
        gc.disable()
        content = json.loads(text, object_pairs_hook=None if repeats else _unique, parse_constant=parse_constant)
    except (ValueError, RecursionError) as error:
        reason = f"nested more than {DEPTH} levels deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise MergeError(f"{where}: not JSON: {reason}. {FETCH}") from error
    finally:
        if collecting:
            gc.enable()
    if not isinstance(content, dict):
        raise MergeError(f"{where}: expected a map, got {type(content).__name__}. {FETCH}")
    if text.count(b"[") + text.count(b"{") > DEPTH and _is_deep(content):
        raise MergeError(f"{where}: nested more than {DEPTH} levels deep. {FETCH}")
    return content


def write_json(path: Path, content: object, *, indent: int | None = 2) -> None:
    """Write JSON with a final newline; without ``indent`` on one line, which is much quicker for large files."""
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{repeated!r} is given twice in one map")
    return found


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(DEPTH):
        inner = [value for part in level for value in (part.values() if isinstance(part, dict) else part)]
        level = [value for value in inner if isinstance(value, (dict, list))]
        if not level:
            return False
    return True
