"""The result of a recipe file before anything is merged: a model whose config, tokenizer and headers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from merge_core.checkpoint.reader import Checkpoint
from merge_core.plan.plan import build_plan
from merge_core.recipe.recipe import Recipe


def planned_result(
    documents: Sequence[Recipe],
    checkpoints: Mapping[str, Checkpoint],
    place: Path,
    seed: int = 0,
    mtp_from: str | None = None,
) -> Checkpoint:
    """What documents make one after the other.

    Args:
        documents: of one file, in the order in which they are made.
        checkpoints: for every reference outside the documents, by its text, the opened model.
        place: an empty directory, for tokenizers that are made.
        seed, mtp_from: as in `build_plan`; the latter of the last document.

    Returns:
        A model whose tensors nobody can read. Where no tokenizer is made, its directory is that of the model whose
        tokenizer it has.

    Raises:
        MergeError: as `build_plan`.
    """
    known = dict(checkpoints)
    for number, document in enumerate(documents):
        plan = build_plan(document, known, seed, mtp_from if document is documents[-1] else None)
        directory = plan.tokenizer.directory
        if plan.tokenizer.changed:
            directory = place / str(number)
            directory.mkdir()
            plan.tokenizer.write(directory)
        result = known[str(document.name)] = Checkpoint(directory, plan.config, plan.headers)
    return result
