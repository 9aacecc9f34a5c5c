"""Sharded safetensors: written in order, one tensor in memory at a time, the index last."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from merge_core.checkpoint.model_directory import INDEX_NAME
from merge_core.checkpoint.weight_files import FORMAT_DTYPES
from merge_core.json_files import write_json

DEFAULT_SHARD_BYTES = 5_000_000_000
_DTYPE_NAMES = {dtype: name for name, dtype in FORMAT_DTYPES.items()}


def plan_shards(sizes: Iterable[tuple[str, int]], shard_bytes: int) -> list[list[str]]:
    """Fill shards in order up to ``shard_bytes``; a larger tensor gets a shard of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes:
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


class ShardWriter:
    """Writes tensors whose shapes are known beforehand, in order, one in memory at a time.

    Args:
        directory: where, as from `new_directory`.
        layout: name, dtype and shape of every tensor, in the order they will be written.
        shard_bytes: largest size of a shard's data.
    """

    def __init__(
        self, directory: Path, layout: list[tuple[str, torch.dtype, tuple[int, ...]]], shard_bytes: int
    ) -> None:
        self._directory = directory
        self._layout = {name: (dtype, shape) for name, dtype, shape in layout}
        sizes = {name: dtype.itemsize * math.prod(shape) for name, dtype, shape in layout}
        self._sizes = sizes
        self._shards = plan_shards(sizes.items(), shard_bytes)

    def file_name(self, shard: int) -> str:
        """``model.safetensors`` when there is one shard, else ``model-00001-of-0000n.safetensors``."""
        count = len(self._shards)
        return "model.safetensors" if count == 1 else f"model-{shard + 1:05d}-of-{count:05d}.safetensors"

    def write(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Write every tensor of the layout, in its order, then the index.

        Raises:
            ValueError: a tensor is not the one the layout has next.
        """
        incoming = iter(tensors)
        for shard, names in enumerate(self._shards):
            with open(self._directory / self.file_name(shard), "wb") as stream:
                stream.write(self._header(names))
                for name in names:
                    given, tensor = next(incoming)
                    if (given, (tensor.dtype, tuple(tensor.shape))) != (name, self._layout[name]):
                        raise ValueError(f"expected {name} {self._layout[name]}, got {given} {tensor.dtype}")
                    stream.write(tensor_bytes(tensor))
                stream.flush()
                os.fsync(stream.fileno())
        if next(incoming, None) is not None:
            raise ValueError("more tensors than planned")
        if len(self._shards) > 1:
            # The index is written last, so its presence means that every shard is complete.
            self._write_index()

    def _header(self, names: list[str]) -> bytes:
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in names:
            dtype, shape = self._layout[name]
            end = offset + self._sizes[name]
            entries[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    def _write_index(self) -> None:
        weight_map = {name: self.file_name(i) for i, shard in enumerate(self._shards) for name in shard}
        index = {"metadata": {"total_size": sum(self._sizes.values())}, "weight_map": weight_map}
        write_json(self._directory / INDEX_NAME, index)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in row-major order, without a copy when it is contiguous on the CPU."""
    flat = tensor.detach().to("cpu").contiguous().view(-1).view(torch.uint8)
    return flat.numpy().data
