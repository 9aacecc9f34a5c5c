"""A model directory whose tensors are written in memory: how weights reach an engine that reads files.

The file lies in shared memory where there is room, so that nothing goes to a disk, and the processes of an engine
all read the same pages. What is written into a tensor is in the file at once; or, where the engine takes tensors from
its own card, when it is asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Layout = Sequence[tuple[str, torch.dtype, tuple[int, ...]]]
"""Name, dtype and shape of every tensor."""

_SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "evolve-weights-"
_LOCK = ".in_use"
_WEIGHTS = "model.safetensors"
_COPIED = frozenset({".json", ".jinja", ".model", ".txt", ".tiktoken"})
_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class StagedWeights:
    """A checkpoint of zeros, until its tensors are written.

    A process that is killed leaves its directory behind; whoever makes the next one removes it.

    Args:
        config: The content of config.json.
        tokenizer_directory: Whose tokenizer and generation settings go along.
        layout: The tensors.
        copies: Further tensors, by the name of the one that each is a copy of.
        root: Where to make the directory; None is shared memory if it has room, else the temporary directory.
        device: Where the tensors are; None is in the file itself, else that stays full of zeros, which take no memory.

    Attributes:
        directory: A model directory as transformers and vLLM read it.
        device: As above.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer_directory: str | Path,
        layout: Layout,
        root: Path | None = None,
        copies: Mapping[str, str] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device
        self._copies = dict(copies or {})
        like = {name: (dtype, shape) for name, dtype, shape in layout}
        layout = [*layout, *((name, *like[source]) for name, source in self._copies.items())]
        # Without holes between the tensors, the largest elements first keep each aligned to its own size.
        ordered = sorted(layout, key=lambda tensor: (-tensor[1].itemsize, tensor[0]))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        ends = [0]
        for name, dtype, shape in ordered:
            ends.append(ends[-1] + torch.Size(shape).numel() * dtype.itemsize)
            header[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": ends[-2:]}
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 64 + 56)  # with the eight bytes of its length, a multiple of 64
        start = 8 + len(encoded)
        size = start + ends[-1]
        root = root if root is not None else _place(size)
        remove_abandoned(root)
        self._temporary = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root)
        self.directory = Path(self._temporary.name)
        self._lock = (self.directory / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        _copy_tokenizer(Path(tokenizer_directory), self.directory)
        (self.directory / "config.json").write_text(json.dumps(dict(config), default=str), encoding="utf-8")
        path = self.directory / _WEIGHTS
        with path.open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            file.truncate(size)
        self._file = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)[start:]
        self._memory = self._file if device is None else torch.zeros(ends[-1], dtype=torch.uint8, device=device)
        self._tensors = {
            name: self._memory[begin:end].view(dtype).view(shape)
            for (name, dtype, shape), begin, end in zip(ordered, ends[:-1], ends[1:], strict=True)
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors, to be written in place; copies are not among them."""
        return {name: tensor for name, tensor in self._tensors.items() if name not in self._copies}

    def copy(self) -> None:
        """Bring the copies up to date."""
        for name, source in self._copies.items():
            self._tensors[name].copy_(self._tensors[source])

    @contextlib.contextmanager
    def as_files(self) -> Iterator[Path]:
        """The directory, whose file holds what the tensors do: where they are elsewhere, only as long as this lasts."""
        if self.device is None:
            yield self.directory
            return
        path = self.directory / _WEIGHTS
        size = path.stat().st_size
        self._file.copy_(self._memory)
        yield self.directory
        os.truncate(path, size - self._file.numel())  # gives the pages back
        os.truncate(path, size)

    def close(self) -> None:
        """Give the memory back. The tensors must not be used any more."""
        self._tensors = {}
        self._file = self._memory = torch.empty(0, dtype=torch.uint8)
        self._temporary.cleanup()
        self._lock.close()


def remove_abandoned(root: Path) -> None:
    """Remove the directories whose makers no longer live: a lock ends with the process that holds it."""
    for directory in root.glob(f"{_PREFIX}*"):
        try:
            with (directory / _LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except OSError:
            continue  # in use, being made this moment, or another user's


def _place(size: int) -> Path:
    """Shared memory holds the file with a tenth to spare, or the disk gets it."""
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > size * 1.1:
        return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def _copy_tokenizer(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.suffix in _COPIED and file.is_file() and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
