"""Atomic sharded safetensors: shards in a temporary directory, index last, then one rename."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from merge_core.checkpoint_reader import INDEX_NAME
from merge_core.errors import MergeError
from merge_core.json_files import write_json
from merge_core.weight_files import FORMAT_DTYPES

DEFAULT_SHARD_BYTES = 5_000_000_000
_DTYPE_NAMES = {dtype: name for name, dtype in FORMAT_DTYPES.items()}


@contextmanager
def new_directory(output: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling of ``output`` that becomes ``output`` when the block ends without an exception.

    What killed merges into the same output left behind is removed first.

    Raises:
        MergeError: ``output`` exists and is not an empty directory, unless ``overwrite``; the disk is full or
            cannot be written.
    """
    output = Path(os.path.abspath(output))
    make_vacant(output, overwrite)
    temporary = temporary_directory(output, "partial")
    try:
        yield temporary
        # mkdtemp makes it private; a finished model is as readable as any other new directory.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        _move_into_place(temporary, output)
        _sync(output.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise MergeError(
                f"{output}: cannot be written: {error.strerror}. Free some space, or name an output on another disk"
            ) from error
        raise


def temporary_directory(output: Path, kind: str) -> Path:
    """A new directory beside ``output``, whose name says what it is and which process it belongs to.

    Raises:
        MergeError: the parent directory cannot be written.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=f".{output.name}.{kind}-{os.getpid()}-", dir=output.parent))
    except OSError as error:
        raise MergeError(
            f"{output.parent}: cannot be written: {error.strerror}. Name an output that you may write"
        ) from error


def recover(output: Path) -> None:
    """Remove what killed merges into ``output`` left beside it, and put back a model that one had set aside."""
    for left in output.parent.glob(f".{glob.escape(output.name)}.*-*-*"):
        kind, process, *_ = left.name.removeprefix(f".{output.name}.").split("-")
        if kind not in ("partial", "old", "intermediates") or not process.isdigit() or _is_alive(int(process)):
            continue
        if kind == "old" and (left / output.name).is_dir() and not output.exists():
            os.rename(left / output.name, output)
        shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def make_vacant(output: Path, overwrite: bool) -> None:
    """Make room for ``output``: what killed merges left is removed, the directory it is in is there.

    Raises:
        MergeError: as `check_vacant`; the directory cannot be made.
    """
    recover(output)
    check_vacant(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MergeError(
            f"{output.parent}: cannot be made: {error.strerror}. Name an output that you may write"
        ) from error


def check_vacant(output: Path, overwrite: bool) -> None:
    """Refuse to write over anything.

    Raises:
        MergeError: ``output`` is a file, or a directory with something in it and not ``overwrite``.
    """
    if output.is_dir() and not output.is_symlink():
        if any(output.iterdir()) and not overwrite:
            raise MergeError(f"{output}: exists and is not empty. Name another output, or set overwrite (--overwrite)")
    elif output.exists() or output.is_symlink():
        raise MergeError(f"{output}: exists and is not a directory. Name another output")


def check_keeps(output: Path, needed: Mapping[str, Path]) -> None:
    """Refuse to replace a directory that what the user still needs lies in.

    Args:
        output: the directory.
        needed: what it is, for the message → where it is.

    Raises:
        MergeError: with the first of them that is in ``output``.
    """
    for what, path in needed.items():
        if path.resolve().is_relative_to(output.resolve()):
            raise MergeError(f"{output}: {what} would be deleted with it. Name another output")


def _move_into_place(temporary: Path, output: Path) -> None:
    if output.is_dir() and any(output.iterdir()):
        # There is no portable exchange of two directories; the old one is set aside, so that at no moment
        # a mixture of both could be taken for a model.
        old = temporary_directory(output, "old")
        os.rename(output, old / output.name)
        try:
            os.rename(temporary, output)
        except OSError:
            os.rename(old / output.name, output)
            raise
        finally:
            if output.exists():
                shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, output)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
