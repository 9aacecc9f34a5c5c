"""What the readers of quantized tensors have in common: what is stored, what is made of it, and grids of scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merge_core.checkpoint.quantized.number_formats import Block, exponents_to_scales
from merge_core.checkpoint.quantized.settings import QuantizationSettings
from merge_core.checkpoint.weight_files import TensorHeader
from merge_core.errors import MergeError


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A tensor that is not stored as it is.

    Attributes:
        shape: of it.
        parts: names of the stored tensors that it is made of, that with its codes first.
        values: makes it of their values, in that order: float32.
    """

    shape: tuple[int, ...]
    parts: tuple[str, ...]
    values: Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a checkpoint has on disk.

    Attributes:
        headers: tensor name → header.
        read: gives a stored tensor.
        settings: what its config says of the quantization.
    """

    headers: Mapping[str, TensorHeader]
    read: Callable[[str], Tensor]
    settings: QuantizationSettings

    def has(self, *names: str) -> tuple[str, ...]:
        """Those of some tensors that are there."""
        return tuple(name for name in names if name in self.headers)

    def dtype(self, name: str) -> torch.dtype:
        """Of a stored tensor that is there."""
        return self.headers[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a stored tensor.

        Raises:
            MergeError: there is none of this name.
        """
        if name not in self.headers:
            raise MergeError(f"no tensor {name}, without which its weight cannot be read. Fetch the model again")
        return self.headers[name].shape

    def grid(self, module: str, shape: Sequence[int], scales: str) -> tuple[tuple[int, ...], Block]:
        """The shape that scales are used in, one for each block, and the size of a block.

        Args:
            module: whose weight they scale.
            shape: of the weight, ``[..., rows, columns]``.
            scales: their name: one of all, one for each row, or one for each block.

        Raises:
            MergeError: they fit no blocks of the weight.
        """
        *stack, rows, columns = shape
        found = self.shape(scales)
        if math.prod(found) == 1:
            return (1,) * len(shape), (rows, columns)
        if found == (*stack, rows):
            found = (*found, 1)
        if len(found) == len(shape) and found[:-2] == tuple(stack):
            down, across = found[-2:]
            for block in (self.settings.scheme(module).block, _even_block(rows, columns, down, across)):
                if block and (math.ceil(rows / block[0]), math.ceil(columns / block[1])) == (down, across):
                    return found, block
        raise MergeError(
            f"{scales}: of shape {list(self.shape(scales))} for a weight of shape {list(shape)}, neither one for each "
            "row nor one for each block of the size in quantization_config. Fetch the model again"
        )


def check_shape(name: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    """Refuse a part that does not fit.

    Raises:
        MergeError: it is of another shape.
    """
    if tuple(found) != tuple(wanted):
        raise MergeError(f"{name}: of shape {list(found)}, needed is {list(wanted)}. Fetch the model again")


def as_scales(scales: Tensor) -> Tensor:
    """Scales in float32, from floats or from the exponents of powers of two."""
    return exponents_to_scales(scales) if scales.dtype is torch.uint8 else scales.to(torch.float32)


def _even_block(rows: int, columns: int, down: int, across: int) -> Block | None:
    if not down or not across or rows % down or columns % across:
        return None
    return rows // down, columns // across
