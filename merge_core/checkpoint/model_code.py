"""Python code that comes with a model: which one needs it, and its copies."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from merge_core.json_files import read_json


def needs_code(directory: Path) -> bool:
    """Whether a model's configuration names Python code of its own (``auto_map``), be it there or not.

    Raises:
        MergeError: a configuration that is not JSON.
    """
    # ``org/name--file.Class`` is another model's code, found on the hub when it is asked for.
    return any(
        "--" not in entry
        for file in (directory / "config.json", directory / "tokenizer_config.json")
        if file.is_file()
        for entry in _entries(read_json(file).get("auto_map"))
    )


def copy_code(directories: Iterable[Path], target: Path) -> None:
    """Copy the code that models need; where two have a file of one name, the first one's is taken."""
    for directory in filter(needs_code, directories):
        for file in sorted(directory.glob("*.py")):
            if not (target / file.name).exists():
                shutil.copyfile(file, target / file.name)


def _entries(auto_map: Any) -> list[str]:
    values = auto_map.values() if isinstance(auto_map, dict) else ()
    listed = [value if isinstance(value, list) else [value] for value in values]
    return [entry for part in listed for entry in part if isinstance(entry, str)]
