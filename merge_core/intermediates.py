"""Results of named documents: where they are, so that they are used again when nothing they are made of changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from merge_core.checkpoint_reader import Checkpoint
from merge_core.recipe import Recipe


def intermediate_directory(document: Recipe, checkpoints: Mapping[str, Checkpoint], seed: int, beside: Path) -> Path:
    """Where the result of a document is kept: its name holds a hash of the document, its models' files and the seed.

    Args:
        document: a named document.
        checkpoints: its models.
        seed: of randomised methods.
        beside: the directory to keep it in.
    """
    digest = hashlib.sha256(f"{document.to_yaml()}\0{seed}".encode())
    for model, checkpoint in sorted(checkpoints.items()):
        digest.update(f"\0{model}".encode())
        for file in sorted({header.file for header in checkpoint.tensors.values()}):
            state = file.stat()
            digest.update(f"\0{file.name}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return beside / f".intermediates-{digest.hexdigest()[:16]}"
