"""Python code that comes with a model: which one needs it, and its copies."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from merge_core.checkpoint_reader import read_json


def own_code(directory: Path) -> tuple[str, ...]:
    """The Python files of a model that its configuration names (``auto_map``); () where transformers' own code does.

    Raises:
        MergeError: a configuration that is not JSON.
    """
    for name in ("config.json", "tokenizer_config.json"):
        file = directory / name
        # ``org/name--file.Class`` is another model's code, found on the hub when it is asked for.
        if file.is_file() and any("--" not in entry for entry in _entries(read_json(file).get("auto_map"))):
            return tuple(sorted(code.name for code in directory.glob("*.py")))
    return ()


def copy_code(directories: Iterable[Path], target: Path) -> None:
    """Copy the code that models need; where two have a file of one name, the first one's is taken."""
    for directory in directories:
        for name in own_code(directory):
            if not (target / name).exists():
                shutil.copyfile(directory / name, target / name)


def _entries(auto_map: Any) -> list[str]:
    values = auto_map.values() if isinstance(auto_map, dict) else ()
    listed = [value if isinstance(value, list) else [value] for value in values]
    return [entry for part in listed for entry in part if isinstance(entry, str)]
