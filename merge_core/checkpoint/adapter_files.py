"""An adapter's directory, opened by header: ``adapter_config.json`` and the tensors beside it."""

from __future__ import annotations

from pathlib import Path

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
