"""A live encoder as sentence-transformers runs it: with the pooling and the other modules of its directory."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from evolve.scoring.errors import TaskError, first_line

_PACKAGE = "sentence_transformers"


def sentence_transformer(model: Any, directory: Path) -> Any:
    """Put a live encoder in the place of the one that a directory has.

    Args:
        model: Of transformers. Its weights may be written at any time; what is made of it follows.
        directory: The model whose modules and prompts it gets. One without ``modules.json`` has the mean over tokens.

    Returns:
        A `SentenceTransformer`, to `encode` texts and to compare vectors.

    Raises:
        TaskError: The package is not installed, the directory is none of its models, or a module is of another package.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise TaskError("sentence-transformers is not installed. Run pip install 'evolve-merge[sentence-transformers]'")
    _refuse_foreign_modules(directory / "modules.json")
    from sentence_transformers import SentenceTransformer

    try:
        made = SentenceTransformer(
            str(directory), device=str(model.device), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # of every module its own
        raise TaskError(f"{directory}: sentence-transformers does not load it: {first_line(error)[:300]}") from error
    made[0].model = model.base_model
    return made.eval()


def _refuse_foreign_modules(file: Path) -> None:
    """A list of modules names classes by the places that they are imported from: code, not data."""
    if not file.is_file():
        return
    try:
        kinds = [str(module["type"]) for module in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise TaskError(f"{file}: no list of modules: {first_line(error)[:300]}. Fetch the file again") from error
    foreign = [kind for kind in kinds if not kind.startswith(f"{_PACKAGE}.")]
    if foreign:
        raise TaskError(f"{file}: {foreign[0][:100]} is code of its own, and none that comes with a model is run")
