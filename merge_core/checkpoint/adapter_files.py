"""An adapter's directory, opened by header, and what ways of folding one into its base have in common."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.weight_files import TensorHeader, read_headers, read_pickle_headers
from merge_core.errors import MergeError
from merge_core.json_files import read_json


def open_adapter(directory: Path) -> Checkpoint:
    """Open an adapter; its config is that of the adapter.

    Raises:
        MergeError: there is none, or it has no tensors.
    """
    if not (directory / "adapter_config.json").exists():
        raise MergeError(f"{directory}: no adapter_config.json, so it is no adapter. Write MODEL+ADAPTER")
    settings = read_json(directory / "adapter_config.json")
    tensors: dict[str, TensorHeader]
    if (directory / "adapter_model.safetensors").exists():
        tensors = read_headers(directory / "adapter_model.safetensors")
    elif (directory / "adapter_model.bin").exists():
        tensors = read_pickle_headers(directory / "adapter_model.bin")
    else:
        raise MergeError(f"{directory}: no adapter_model.safetensors. Fetch the adapter again")
    if not tensors:
        raise MergeError(f"{directory}: the adapter has no tensors. Fetch the adapter again")
    return Checkpoint(directory, settings, tensors)


class AdaptedCheckpoint(Checkpoint):
    """A base model with an adapter folded in: read like any other checkpoint.

    Folded tensors are read in float32, so that they are rounded once, at the end of the merge; their headers keep
    the base's dtype.
    """

    _base: Checkpoint
    _adapter: Checkpoint
    _folded: Collection[str]  # tensors that the adapter changes, rather than leaves or replaces

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return type(self), (self._base, self._adapter.directory)

    @property
    def directories(self) -> tuple[Path, ...]:
        """The base model's, then the adapter's."""
        return (*self._base.directories, self._adapter.directory)

    @property
    def is_quantized(self) -> bool:
        """Whether the base model is."""
        return self._base.is_quantized

    def cache_key(self, name: str) -> str | None:
        """None where the adapter is folded in; see `Checkpoint.cache_key`."""
        return None if name in self._folded else super().cache_key(name)

    def load(self, name: str) -> None:
        """Bring a tensor's pages into memory; the adapter's are few."""
        if name in self._base.tensors:
            self._base.load(name)

    def release(self, name: str) -> None:
        """Let go of a tensor's pages."""
        if name in self._base.tensors:
            self._base.release(name)
