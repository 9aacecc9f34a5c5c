"""What a file of weights holds, read without its data: safetensors headers, and ``.bin`` without running its code."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merge_core.errors import MergeError, and_more

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
        return math.prod(self.shape)


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


def load_pickle(file: Path) -> Mapping[str, Tensor]:
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
        str(name): TensorHeader(tensor.dtype, tuple(tensor.shape), file) for name, tensor in load_pickle(file).items()
    }
