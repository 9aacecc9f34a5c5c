"""From the references of a recipe to opened models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from merge_core.checkpoint.adapters import adapted_checkpoint
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, Problem
from merge_core.recipe.model_reference import ModelPath, ModelReference, resolve_path


def open_checkpoints(
    references: Sequence[ModelReference],
    relative_to: Path | None = None,
    known: Mapping[str, Path] | None = None,
    *,
    cache: Path | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Checkpoint]:
    """Find and open models; every one that fails is in the error.

    Args:
        references: as from `Recipe.references`.
        relative_to: the recipe's directory.
        known: directories of models that are not looked for: intermediate results, stand-ins.
        cache: where models of the hub are kept, in place of the hub's own setting.
        trust_remote_code: whether Python code that comes with a model may run.

    Raises:
        MergeError: with a line for every model that cannot be found or opened.
    """
    checkpoints: dict[str, Checkpoint] = {}
    problems: list[Problem] = []
    known = known or {}

    def find(path: ModelPath) -> Path:
        found = known.get(str(path))
        return found or resolve_path(path, relative_to, cache=cache, code=trust_remote_code)

    for reference in references:
        text = str(reference)
        try:
            if text in known or reference.lora is None:
                checkpoints[text] = Checkpoint.open(known.get(text) or find(reference.model), trust_remote_code)
            else:
                base = Checkpoint.open(find(reference.model), trust_remote_code)
                checkpoints[text] = adapted_checkpoint(base, find(reference.lora))
        except MergeError as error:
            problems.extend(error.problems)
    if problems:
        raise MergeError(*problems)
    return checkpoints
