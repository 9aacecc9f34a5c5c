"""MXFP4 as gpt-oss has its experts: four-bit floats, 32 of which share a power of two."""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.checkpoint.quantized.number_formats import exponents_to_scales, unpack_e2m1
from merge_core.checkpoint.quantized.stored import QuantizedTensor, Stored, check_shape


def read_mxfp4(stem: str, stored: Stored) -> QuantizedTensor | None:
    """How a stack is read of its ``_blocks`` ``[experts, rows, groups, 16]`` and its ``_scales``.

    What is stored by rows is the transpose of the matrices that the model has: ``[experts, 32 groups, rows]``.
    """
    codes, scales = f"{stem}_blocks", f"{stem}_scales"
    if stored.dtype(codes) is not torch.uint8 or len(stored.shape(codes)) != 4:
        return None
    experts, rows, groups, pairs = stored.shape(codes)
    check_shape(scales, stored.shape(scales), (experts, rows, groups))
    return QuantizedTensor((experts, groups * pairs * 2, rows), (codes, scales), mxfp4_values)


def mxfp4_values(blocks: Tensor, exponents: Tensor) -> Tensor:
    """The matrices of a stack.

    Args:
        blocks: uint8 ``[experts, rows, groups, 16]``.
        exponents: uint8 ``[experts, rows, groups]``.

    Returns:
        float32 ``[experts, 32 groups, rows]``.
    """
    numbers = unpack_e2m1(blocks) * exponents_to_scales(exponents).unsqueeze(-1)
    return numbers.flatten(-2).transpose(1, 2).contiguous()
