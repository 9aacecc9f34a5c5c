"""`evolve merge` with a progress bar, and the reading of its options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evolve.report.progress_bar import Display, progress_bar
from merge_core import MergeError, MergeResult, load_recipes, merge

_UNITS = {"": 10**9, "G": 10**9, "M": 10**6, "K": 10**3, "T": 10**12}


def merge_with_progress(recipe: Path, output: Path | None, *, display: Display = "bar", **options: Any) -> MergeResult:
    """`merge_core.merge`, showing on stderr what is done.

    Args:
        recipe, output, options: as there.
        display: as in `progress_bar`.
    """
    _check_stand_ins(recipe, options.get("models") or {})
    with progress_bar("merging", display) as report:
        return merge(recipe, output, progress=report, **options)


def _check_stand_ins(recipe: Path, models: Mapping[str, Path]) -> None:
    if not models:
        return
    references = [reference for document in load_recipes(recipe) for reference in document.references()]
    known = {str(part) for reference in references for part in (reference, reference.model, reference.lora) if part}
    for name in models:
        if name not in known:
            raise MergeError(f"--model {name}: {recipe.name} names no such model. It names: {', '.join(sorted(known))}")


def read_size(text: str) -> int:
    """Read a size of files: ``5GB``, ``500M`` or a number of gigabytes; units are powers of ten.

    As mergekit does, ``5B`` is five billion bytes, and a number from a million on is bytes.

    Raises:
        MergeError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    number = 0.0 if match is None else float(match[1])
    size = 0 if match is None else int(number * (1 if number >= 1e6 and not match[2] else _UNITS[match[2]]))
    if size <= 0:
        raise MergeError(f'--shard-size {text}: expected a size, got "{text}". Example: --shard-size 5GB')
    return size


def read_stand_ins(settings: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=DIR`` settings; the name is a model as the recipe writes it.

    Raises:
        MergeError: no ``=``, or no such directory.
    """
    models = {}
    for setting in settings:
        name, equals, directory = setting.rpartition("=")
        if not equals or not name or not directory:
            raise MergeError(f"--model {setting}: expected NAME=DIR. Example: --model org/name=/models/name")
        if not Path(directory).is_dir():
            raise MergeError(f"--model {setting}: no directory {directory}. Name the directory of the model")
        models[name] = Path(directory)
    return models
