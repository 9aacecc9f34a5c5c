"""Forms in which a merged tensor is written quantized, each read back by what reads published models of that form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from merge_core.checkpoint.quantized.mxfp4 import mxfp4_values
from merge_core.checkpoint.quantized.number_formats import (
    Block,
    pack_e2m1,
    scale_blocks,
    scales_to_exponents,
    tiles,
)

Stored = Mapping[str, Tensor]

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_GROUP = 32


class QuantizedForm(Protocol):
    """How a tensor is written."""

    def layout(self, name: str, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """The stored tensors of one of this name and shape: name → dtype and shape."""

    def store(self, name: str, tensor: Tensor) -> Stored:
        """The stored tensors, of a tensor in float32."""

    def values(self, stored: Stored) -> Tensor:
        """What they stand for, in float32."""


@dataclass(frozen=True, slots=True)
class BlockFloat8:
    """E4M3 with a float32 scale for every block of a matrix, which takes its largest magnitude to 448.

    As DeepSeek-V3 (https://arxiv.org/abs/2412.19437, section 3.3) and Qwen3-FP8 are published: ``weight`` beside
    ``weight_scale_inv``.

    Attributes:
        block: rows and columns of a block.
    """

    block: Block

    def layout(self, name: str, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """See `QuantizedForm`."""
        grid = (*shape[:-2], *(math.ceil(size / step) for size, step in zip(shape[-2:], self.block, strict=True)))
        return {name: (torch.float8_e4m3fn, shape), f"{name}_scale_inv": (torch.float32, grid)}

    def store(self, name: str, tensor: Tensor) -> Stored:
        """See `QuantizedForm`."""
        rows, columns = tensor.shape[-2:]
        padding = (0, -columns % self.block[1], 0, -rows % self.block[0])
        largest = tiles(torch.nn.functional.pad(tensor, padding), self.block).abs().amax((-3, -1))
        scales = torch.where(largest > 0, largest / _LARGEST, 1.0)
        codes = scale_blocks(tensor, 1 / scales, self.block).clamp(-_LARGEST, _LARGEST)
        return {name: codes.to(torch.float8_e4m3fn), f"{name}_scale_inv": scales}

    def values(self, stored: Stored) -> Tensor:
        """See `QuantizedForm`."""
        codes, scales = stored.values()
        return scale_blocks(codes.to(torch.float32), scales, self.block)


@dataclass(frozen=True, slots=True)
class Mxfp4Stack:
    """MXFP4 as gpt-oss has its experts: the transposes of their matrices in groups of 32 of E2M1.

    The power of two of a group is the largest that leaves its largest magnitude in range, by section 6.3 of the OCP
    Microscaling Formats specification: what was read of such a model is written as it was.
    """

    def layout(self, name: str, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """See `QuantizedForm`."""
        experts, inputs, rows = shape
        grid = (experts, rows, inputs // _GROUP)
        return {f"{name}_blocks": (torch.uint8, (*grid, _GROUP // 2)), f"{name}_scales": (torch.uint8, grid)}

    def store(self, name: str, tensor: Tensor) -> Stored:
        """See `QuantizedForm`."""
        experts, inputs, rows = tensor.shape
        groups = tensor.transpose(1, 2).reshape(experts, rows, inputs // _GROUP, _GROUP)
        exponents = scales_to_exponents(groups.abs().amax(-1))
        return {f"{name}_blocks": pack_e2m1(groups, exponents), f"{name}_scales": exponents}

    def values(self, stored: Stored) -> Tensor:
        """See `QuantizedForm`."""
        return mxfp4_values(*stored.values())
