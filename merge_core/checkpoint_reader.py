"""Lazy, memory-mapped checkpoints: opening reads the headers, reading a tensor maps its bytes."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from merge_core.errors import MergeError, and_more

if TYPE_CHECKING:
    from merge_core.architecture import Layout
    from merge_core.vocabulary import Vocabulary

INDEX_NAME = "model.safetensors.index.json"
PICKLE_INDEX_NAME = "pytorch_model.bin.index.json"
FORMAT_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The element types of the safetensors format."""

_WILL_NEED: int | None = getattr(mmap, "MADV_WILLNEED", None)
_DO_NOT_NEED: int | None = getattr(mmap, "MADV_DONTNEED", None)
# Linux 5.14; Python has no name for it.
_POPULATE_READ: int | None = 22 if sys.platform == "linux" else None

# The format's own limit; it also bounds what a corrupt length field can make us read.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """What is known of a tensor without reading it.

    Attributes:
        dtype: element type.
        shape: dimensions.
        file: the file that holds it.
        start: position of its first byte in the file (0 for a ``.bin`` file).
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    start: int = 0

    @property
    def count(self) -> int:
        """Number of elements."""
        result = 1
        for size in self.shape:
            result *= size
        return result


class Checkpoint:
    """A model directory: ``config.json`` and weights, opened by header.

    Attributes:
        directory: where it is.
        config: the content of ``config.json`` ({} when there is none).
        tensors: tensor name → header.
        found_finite: inputs that were found to have neither NaN nor infinity, so that they are looked at once.
        trust_remote_code: whether Python code in the directory may run, where nothing else reads its tokenizer.
    """

    def __init__(self, directory: Path, config: dict[str, Any], tensors: dict[str, TensorHeader]) -> None:
        self.directory = directory
        self.config = config
        self.tensors: Mapping[str, TensorHeader] = tensors
        self.found_finite: set[Any] = set()
        self.trust_remote_code = False
        self.layout_cache: Layout | None = None
        self.vocabulary_cache: Vocabulary | None = None
        self.alignment_cache: dict[Any, Any] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self._pickles: dict[Path, Mapping[str, Tensor]] = {}

    @classmethod
    def open(cls, directory: Path | str) -> Checkpoint:
        """Read and check the headers of a model directory.

        Raises:
            MergeError: no directory, no weights, a file that is cut short or corrupt, or an index that names
                a missing file, a missing tensor or a file outside the directory.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise MergeError(f"{directory}: no such directory. Name a model directory")
        config = read_json(directory / "config.json") if (directory / "config.json").exists() else {}
        tensors: dict[str, TensorHeader] = {}
        files = _weight_files(directory)
        for file in files:
            headers = read_pickle_headers(file) if file.suffix == ".bin" else read_headers(file)
            for name, header in headers.items():
                if name in tensors:
                    raise MergeError(
                        f"{file}: tensor {name} is in {tensors[name].file.name} too. Remove the stale shard"
                    )
                tensors[name] = header
        _check_index(directory / (PICKLE_INDEX_NAME if files[0].suffix == ".bin" else INDEX_NAME), tensors)
        return cls(directory, config, tensors)

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Checkpoint.open, (self.directory,)

    def read(self, name: str) -> Tensor:
        """Map a tensor. Its memory is the file's pages, loaded when touched; do not write to it.

        Raises:
            MergeError: no such tensor.
        """
        header = self.tensors.get(name)
        if header is None:
            raise MergeError(f"{self.directory}: no tensor {name}")
        if header.file.suffix == ".bin":
            if header.file not in self._pickles:
                self._pickles[header.file] = _load_pickle(header.file)
            return self._pickles[header.file][name]
        if header.count == 0:
            return torch.empty(header.shape, dtype=header.dtype)
        mapped = self._map(header.file)
        if header.start % header.dtype.itemsize:
            # The format allows any offset; vector loads do not.
            content = bytearray(mapped[header.start : header.start + header.count * header.dtype.itemsize])
            return torch.frombuffer(content, dtype=header.dtype).view(header.shape)
        flat = torch.frombuffer(mapped, dtype=header.dtype, count=header.count, offset=header.start)
        return flat.view(header.shape)

    def identity(self, name: str) -> str | None:
        """A tensor's name and the state of the file it is in; None where its values depend on more than that."""
        file = self.tensors[name].file
        state = file.stat()
        return f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0{name}"

    def load(self, name: str) -> None:
        """Bring a tensor's pages into memory, so that using it does not wait for the disk."""
        # Populating also enters the pages in the page table, which costs more when every page is met by itself.
        if not self._advise(name, _POPULATE_READ):
            self._advise(name, _WILL_NEED)

    def release(self, name: str) -> None:
        """Let go of a tensor's pages; they are read again when touched."""
        self._advise(name, _DO_NOT_NEED)

    def _advise(self, name: str, advice: int | None) -> bool:
        header = self.tensors[name]
        if header.file.suffix == ".bin" or header.count == 0 or advice is None:
            return True
        # Whole pages; the ones at the ends may be shared with neighbours, which only costs time.
        start = header.start // mmap.PAGESIZE * mmap.PAGESIZE
        end = header.start + header.count * header.dtype.itemsize
        try:
            self._map(header.file).madvise(advice, start, end - start)
        except OSError:
            return False
        return True

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with open(file, "rb") as stream:
                # Private and writable, because torch refuses read-only memory; no swap reserved for copies
                # that nobody makes, so that a file larger than the memory maps.
                self._maps[file] = mmap.mmap(
                    stream.fileno(),
                    0,
                    flags=mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0),
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
        return self._maps[file]


def read_headers(file: Path) -> dict[str, TensorHeader]:
    """Read and check the header of one safetensors file.

    Raises:
        MergeError: what is wrong with it, in one line.
    """
    fix = "Fetch or write the file again"
    if file.exists() and not file.is_file():
        # Opening a pipe would wait for its other end.
        raise MergeError(f"{file}: not a file. {fix}")
    try:
        size = os.path.getsize(file)
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise MergeError(f"{file}: cut short or not safetensors ({size} bytes). {fix}")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise MergeError(f"{file}: cannot be read: {error.strerror}. {fix}") from error
    except ValueError as error:
        if isinstance(error, MergeError):
            raise
        raise MergeError(f"{file}: the header is corrupt: {error}. {fix}") from error
    if not isinstance(header, dict):
        raise MergeError(f"{file}: the header is corrupt: not a map. {fix}")
    header.pop("__metadata__", None)
    data_start = 8 + length
    headers = {}
    for name, entry in header.items():
        headers[name] = _tensor_header(file, name, entry, data_start, size)
    _refuse_overlaps(file, headers)
    return headers


def _refuse_overlaps(file: Path, headers: Mapping[str, TensorHeader]) -> None:
    end, before = 0, ""
    for name, header in sorted(headers.items(), key=lambda entry: (entry[1].start, entry[1].count)):
        if header.start < end:
            raise MergeError(f"{file}: tensors {before} and {name} share bytes. Fetch or write the file again")
        end, before = header.start + header.count * header.dtype.itemsize, name


def _tensor_header(file: Path, name: str, entry: Any, data_start: int, size: int) -> TensorHeader:
    try:
        shape = tuple(int(dimension) for dimension in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
        format_dtype = str(entry["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise MergeError(f"{file}: the header of {name} is corrupt. Fetch or write the file again") from error
    dtype = FORMAT_DTYPES.get(format_dtype)
    if dtype is None:
        raise MergeError(f"{file}: tensor {name} has the unknown dtype {format_dtype}. Convert it to bfloat16")
    header = TensorHeader(dtype, shape, file, data_start + start)
    expected = header.count * dtype.itemsize
    if start < 0 or end - start != expected or any(dimension < 0 for dimension in shape):
        raise MergeError(
            f"{file}: tensor {name} of shape {list(shape)} needs {expected} bytes, its header says {end - start}. "
            "Fetch or write the file again"
        )
    if data_start + end > size:
        raise MergeError(
            f"{file}: cut short: {size} bytes, but tensor {name} ends at {data_start + end}. Fetch the file again"
        )
    return header


def _weight_files(directory: Path) -> list[Path]:
    index = directory / INDEX_NAME
    if index.exists():
        return _indexed_files(index)
    files = sorted(file for file in directory.glob("*.safetensors") if not file.name.startswith("adapter_"))
    if (directory / "model.safetensors") in files:
        return [directory / "model.safetensors"]
    if files:
        return files
    if (directory / PICKLE_INDEX_NAME).exists():
        return _indexed_files(directory / PICKLE_INDEX_NAME)
    files = sorted(directory.glob("pytorch_model*.bin"))
    if files:
        return files
    if (directory / "adapter_config.json").exists():
        base = read_json(directory / "adapter_config.json").get("base_model_name_or_path") or "MODEL"
        raise MergeError(f"{directory}: an adapter, not a model. Name it with its base: {base}+{directory}")
    found = and_more(sorted(entry.name for entry in directory.iterdir())) or "nothing"
    raise MergeError(f"{directory}: no *.safetensors file (found {found}). Name a model directory")


def _indexed_files(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MergeError(f"{index}: no weight_map. Fetch the file again")
    files = []
    for name in dict.fromkeys(weight_map.values()):
        # An index is data from outside: it may not make us open files elsewhere.
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
            raise MergeError(f"{index}: names the file {name!r} outside the directory. Fetch the model again")
        file = index.parent / name
        if not file.exists():
            raise MergeError(f"{index}: names {name}, which is missing. Fetch the model again")
        files.append(file)
    return files


def _check_index(index: Path, tensors: Mapping[str, TensorHeader]) -> None:
    if index.exists():
        missing = [name for name in read_json(index)["weight_map"] if name not in tensors]
        if missing:
            raise MergeError(f"{index}: names tensors that no shard holds: {and_more(missing)}. Fetch the model again")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON map.

    Raises:
        MergeError: not JSON, or no map.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"{path}: not JSON: {error}. Fetch or write the file again") from error
    if not isinstance(content, dict):
        raise MergeError(f"{path}: expected a map, got {type(content).__name__}. Fetch or write the file again")
    return content


def _load_pickle(file: Path) -> Mapping[str, Tensor]:
    fix = "Convert it to safetensors"
    if file.exists() and not file.is_file():
        raise MergeError(f"{file}: not a file. {fix}")
    try:
        # Files of torch before 1.6 are no archives, and cannot be mapped.
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise MergeError(
            f"{file}: cannot be loaded safely: it is damaged, or holds more than tensors. {fix}"
        ) from error
    except Exception as error:  # torch raises many types on a corrupt file
        first_sentence = re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0] or type(error).__name__
        raise MergeError(f"{file}: cannot be loaded: {first_sentence}. Fetch the file again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise MergeError(f"{file}: expected a map from names to tensors. {fix}")
    odd = [str(name) for name, value in content.items() if value.layout != torch.strided or value.is_quantized]
    if odd:
        raise MergeError(f"{file}: sparse or quantized tensors: {and_more(odd)}. {fix}, as plain tensors")
    return content


def read_pickle_headers(file: Path) -> dict[str, TensorHeader]:
    """What a ``.bin`` file holds; it is loaded without running any code it may contain.

    Raises:
        MergeError: corrupt, or more than tensors in it.
    """
    return {
        str(name): TensorHeader(tensor.dtype, tuple(tensor.shape), file) for name, tensor in _load_pickle(file).items()
    }
