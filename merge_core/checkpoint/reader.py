"""Lazy, memory-mapped checkpoints: opening reads the headers, reading a tensor maps its bytes.

Quantized weights are read as the float tensors that they stand for, in float32, so that they are rounded once, at the
end of a merge; their headers have the dtype that the model computes in.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from merge_core.checkpoint.model_directory import read_directory
from merge_core.checkpoint.quantized.find import find_quantized
from merge_core.checkpoint.quantized.settings import QuantizationSettings, without_quantization
from merge_core.checkpoint.quantized.stored import QuantizedTensor, Stored
from merge_core.checkpoint.weight_files import TensorHeader, load_pickle
from merge_core.errors import CutShortError, MergeError
from merge_core.input_files import reading

_WILL_NEED: int | None = getattr(mmap, "MADV_WILLNEED", None)
_DO_NOT_NEED: int | None = getattr(mmap, "MADV_DONTNEED", None)
_RANDOM: int | None = getattr(mmap, "MADV_RANDOM", None)
# Linux 5.14; Python has no name for it.
_POPULATE_READ: int | None = 22 if sys.platform == "linux" else None

_FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Found = TypeVar("Found")


class Checkpoint:
    """A model directory: ``config.json`` and weights, opened by header.

    Attributes:
        directory: where it is.
        config: the content of ``config.json`` ({} when there is none), without what it says of a quantization.
        tensors: tensor name → header.
        trust_remote_code: whether Python code in the directory may run, where nothing else reads its tokenizer.
        quantization: what the config says of how its weights are stored.
        quantized: tensor name → how it is read, of those that are stored quantized.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        tensors: dict[str, TensorHeader],
        trust_remote_code: bool = False,
    ) -> None:
        self.directory = directory
        self.config = config
        self.tensors: Mapping[str, TensorHeader] = tensors
        self.trust_remote_code = trust_remote_code
        self._stored: Mapping[str, TensorHeader] = tensors
        self.quantization = QuantizationSettings()
        self.quantized: Mapping[str, QuantizedTensor] = {}
        self._found: dict[Hashable, Any] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self._pickles: dict[Path, Mapping[str, Tensor]] = {}

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where its files are."""
        return (self.directory,)

    @property
    def parts(self) -> tuple[Checkpoint, ...]:
        """The models on disk that it is read from: itself, unless it is merged of others."""
        return (self,)

    @property
    def is_quantized(self) -> bool:
        """Whether its weights are what rounding to few bits left of others."""
        return bool(self.quantized)

    @property
    def held_bytes(self) -> int:
        """Memory that it takes of its own, beside the pages of files: none."""
        return 0

    @property
    def stored_bytes(self) -> int:
        """Size of the weights on disk."""
        return sum(header.count * header.dtype.itemsize for header in self._stored.values())

    @classmethod
    def open(cls, directory: Path | str, trust_remote_code: bool = False) -> Checkpoint:
        """Read and check the headers of a model directory.

        Args:
            directory: where the model is.
            trust_remote_code: see the attribute.

        Raises:
            MergeError: no directory, no weights, a file that is cut short or corrupt, an index that names
                a missing file, a missing tensor or a file outside the directory, or weights that are quantized in a
                way that is not read.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise MergeError(f"{directory}: no such directory. Name a model directory")
        with reading(directory):
            checkpoint = cls(directory, *read_directory(directory), trust_remote_code)
            checkpoint._find_quantized()
            return checkpoint

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Checkpoint.open, (self.directory, self.trust_remote_code)

    def memo(self, key: Hashable, make: Callable[[], Found]) -> Found:
        """Look up what is kept under a key, or make it and keep it as long as the checkpoint.

        Args:
            key: the function that asks, or a tuple that begins with it, so that no two modules share a key.
            make: finds what is not known yet.
        """
        if key not in self._found:
            self._found[key] = make()
        return cast("Found", self._found[key])

    def read(self, name: str) -> Tensor:
        """Map a tensor. Its memory is the file's pages, loaded when touched; do not write to it.

        A quantized one is made anew at each call, in float32.

        Raises:
            MergeError: no such tensor.
            CutShortError: the file was cut short since it was opened.
        """
        if name not in self.tensors:
            raise MergeError(f"{self.directory}: no tensor {name}")
        quantized = self.quantized.get(name)
        if quantized is None:
            return self._read_stored(name)
        with reading(f"{self.directory}: {name}"):
            return quantized.values(*map(self._read_stored, quantized.parts))

    def _find_quantized(self) -> None:
        """Present quantized tensors as what they stand for."""
        self.quantization = QuantizationSettings.of(self.config)
        try:
            found, parts = find_quantized(Stored(self._stored, self._read_stored, self.quantization))
        except MergeError as error:
            raise MergeError(f"{self.directory}: {error.problems[0].message}") from error
        dtype = _stated_dtype(self.config)
        self.config = without_quantization(self.config)
        plain = {name: header for name, header in self._stored.items() if name not in parts}
        made = {
            name: replace(self._stored[tensor.parts[0]], dtype=dtype, shape=tensor.shape)
            for name, tensor in found.items()
        }
        self.tensors, self.quantized = plain | made, found

    def _parts(self, name: str) -> tuple[str, ...]:
        quantized = self.quantized.get(name)
        return (name,) if quantized is None else quantized.parts

    def _read_stored(self, name: str) -> Tensor:
        header = self._stored[name]
        if header.count == 0:
            return torch.empty(header.shape, dtype=header.dtype)
        mapped = self._map(header)
        if header.file.suffix == ".bin":  # torch maps it by itself, and does not look again
            return self._pickled(header.file, name)
        if header.start % header.dtype.itemsize:
            # The format allows any offset; vector loads do not.
            content = bytearray(mapped[header.start : header.start + header.count * header.dtype.itemsize])
            return torch.frombuffer(content, dtype=header.dtype).view(header.shape)
        flat = torch.frombuffer(mapped, dtype=header.dtype, count=header.count, offset=header.start)
        return flat.view(header.shape)

    def _pickled(self, file: Path, name: str) -> Tensor:
        if file not in self._pickles:
            self._pickles[file] = load_pickle(file)
        return self._pickles[file][name]

    def cache_key(self, name: str) -> str | None:
        """A tensor's name and the state of the file it is in; None where its values depend on more than that."""
        files = dict.fromkeys(self._stored[part].file for part in self._parts(name))
        states = [(file.resolve(), file.stat()) for file in files]
        return "\0".join([*(f"{file}\0{state.st_size}\0{state.st_mtime_ns}" for file, state in states), name])

    def load(self, name: str) -> None:
        """Bring a tensor's pages into memory, so that using it does not wait for the disk."""
        # Populating also enters the pages in the page table, which costs more when every page is met by itself.
        if not self._advise(name, _POPULATE_READ):
            self._advise(name, _WILL_NEED)

    def release(self, name: str) -> None:
        """Let go of a tensor's pages; they are read again when touched."""
        self._advise(name, _DO_NOT_NEED)

    def read_in_parts(self, name: str) -> Tensor:
        """As `read`, of which only some pages are going to be touched: the disk reads those and no more."""
        self._advise(name, _RANDOM)
        return self.read(name)

    def _advise(self, name: str, advice: int | None) -> bool:
        followed = [self._advise_stored(part, advice) for part in self._parts(name)]
        return all(followed)

    def _advise_stored(self, name: str, advice: int | None) -> bool:
        header = self._stored[name]
        if header.file.suffix == ".bin" or header.count == 0 or advice is None:
            return True
        # Whole pages; the ones at the ends may be shared with neighbours, which only costs time.
        start = header.start // mmap.PAGESIZE * mmap.PAGESIZE
        end = header.start + header.count * header.dtype.itemsize
        try:
            self._map(header).madvise(advice, start, end - start)
        except OSError:
            return False
        return True

    def _map(self, header: TensorHeader) -> mmap.mmap:
        file = header.file
        if file not in self._maps:
            with reading(file), open(file, "rb") as stream:
                # Private and writable, because torch refuses read-only memory; no swap reserved for copies
                # that nobody makes, so that a file larger than the memory maps.
                self._maps[file] = mmap.mmap(
                    stream.fileno(),
                    0,
                    flags=mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0),
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
        mapped = self._maps[file]
        left = len(mapped)
        with contextlib.suppress(OSError):  # a scorer may have closed every descriptor, without which the pages stay
            left = mapped.size()
        whole = max(len(mapped), header.start + header.count * header.dtype.itemsize)
        if left < whole:  # whoever touches what is gone is killed (SIGBUS), without a word
            raise CutShortError(
                f"{file}: was cut short while it was read: {left} of {whole} bytes are left. Put it back and run the "
                "same command again"
            )
        return mapped


def _stated_dtype(config: Mapping[str, Any]) -> torch.dtype:
    """The dtype that a model computes in, as its config or that of its language model says."""
    sections = [config, *(section for section in config.values() if isinstance(section, dict))]
    named = (section.get(key) for section in sections for key in ("dtype", "torch_dtype"))
    return next((found for name in named if (found := _FLOATS.get(str(name))) is not None), torch.bfloat16)
