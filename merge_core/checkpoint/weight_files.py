"""What a file of weights holds, read without its data: safetensors headers, and ``.bin`` without running its code."""

from __future__ import annotations

import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from merge_core.bounds import DIMENSION, HEADER_BYTES, NAME_CHARACTERS
from merge_core.errors import MergeError, and_more, check_name, first_line
from merge_core.input_files import FETCH, reading
from merge_core.json_files import parse_json

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
    text, size = _header_text(file)
    # Infinity is JSON to Python, and no size of anything.
    header = parse_json(text, f"{file}: the header is corrupt", parse_constant=_refuse_constant)
    header.pop("__metadata__", None)
    with reading(f"{file}: the header"):
        headers = {name: _tensor_header(file, name, entry, 8 + len(text), size) for name, entry in header.items()}
    _refuse_overlaps(file, headers)
    return headers


def _header_text(file: Path) -> tuple[bytes, int]:
    """The JSON at the beginning of a file, and the file's size."""
    if file.exists() and not file.is_file():
        # Opening a pipe would wait for its other end.
        raise MergeError(f"{file}: not a file. {FETCH}")
    with reading(file), open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_BYTES):
            raise MergeError(f"{file}: cut short or not safetensors ({size} bytes). {FETCH}")
        return stream.read(length), size


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} where a number stands")


def _refuse_overlaps(file: Path, headers: Mapping[str, TensorHeader]) -> None:
    end, before = 0, ""
    for name, header in sorted(headers.items(), key=lambda entry: (entry[1].start, entry[1].count)):
        if header.start < end:
            raise MergeError(f"{file}: tensors {before} and {name} share bytes. Fetch or write the file again")
        end, before = header.start + header.count * header.dtype.itemsize, name


def _tensor_header(file: Path, name: str, entry: Any, data_start: int, size: int) -> TensorHeader:
    try:
        shape = tuple(_whole(dimension, DIMENSION) for dimension in entry["shape"])
        start, end = (_whole(offset, size) for offset in entry["data_offsets"])
        format_dtype = str(entry["dtype"])
        check_name(name)
    except (KeyError, TypeError, ValueError) as error:
        raise MergeError(
            f"{file}: the header of {name[:NAME_CHARACTERS]} is corrupt: {first_line(error)}. {FETCH}"
        ) from error
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


def _whole(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"expected a whole number from 0 to {most}, got {str(value)[:40]}")
    return value


def load_pickle(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a ``.bin`` file, mapped where they can be; none of the code that it may contain runs.

    Raises:
        MergeError: corrupt, or more than plain tensors in it.
    """
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
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise MergeError(f"{file}: expected a map from names to tensors. {fix}")
    with reading(file):
        for name in content:
            check_name(name)
        odd = [name for name, value in content.items() if not _is_plain(value)]
    if odd:
        raise MergeError(
            f"{file}: not plain tensors: {and_more(odd)}; they are sparse, quantized, complex, without data or "
            f"repeat it. {fix}, as plain tensors"
        )
    return cast("dict[str, Tensor]", content)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor's values are numbers of the format, each with bytes of its own: an expanded one can be huge."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    if tensor.dtype not in FORMAT_DTYPES.values():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def read_pickle_headers(file: Path) -> dict[str, TensorHeader]:
    """What a ``.bin`` file holds; it is loaded without running any code it may contain.

    Raises:
        MergeError: corrupt, or more than tensors in it.
    """
    return {name: TensorHeader(tensor.dtype, tuple(tensor.shape), file) for name, tensor in load_pickle(file).items()}
