"""Results of named documents: where they are, so that they are used again when nothing they are made of changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from merge_core.checkpoint.reader import Checkpoint
from merge_core.kernels.random_numbers import GENERATOR
from merge_core.methods import METHODS
from merge_core.recipe.recipe import Recipe

_KEY_FILE = ".made_of"  # the name that directories of earlier versions have


def cache_key(document: Recipe, checkpoints: Mapping[str, Checkpoint], seed: int) -> str:
    """A hash of a named document, its models' files and the seed: equal when the result would be.

    Args:
        document: a named document.
        checkpoints: its models.
        seed: of randomised methods.
    """
    method = METHODS[document.merge_method]
    drawn = f"{seed} {GENERATOR}" if method.randomised else "0"
    digest = hashlib.sha256(f"{document.to_yaml()}\0{drawn}{method.code}".encode())
    for model, checkpoint in sorted(checkpoints.items()):
        digest.update(f"\0{model}".encode())
        for file in sorted({header.file for header in checkpoint.tensors.values()}):
            state = file.stat()
            digest.update(f"\0{file.name}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return digest.hexdigest()


def write_cache_key(directory: Path, key: str) -> None:
    """Note in the directory of a result what it is made of."""
    (directory / _KEY_FILE).write_text(key, encoding="utf-8")


def read_cache_key(directory: Path) -> str | None:
    """What a directory's result is made of; None when it is not one of ours."""
    file = directory / _KEY_FILE
    return file.read_text(encoding="utf-8") if file.is_file() else None
