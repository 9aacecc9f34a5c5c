"""``weight_packed`` of compressed-tensors: integers in words of 32 bits, or pairs of four-bit floats in bytes.

https://github.com/neuralmagic/compressed-tensors; formats ``pack-quantized``, ``nvfp4-pack-quantized``,
``mxfp4-pack-quantized``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.checkpoint.quantized.number_formats import (
    scale_blocks,
    spread_blocks,
    unpack_e2m1,
    unpack_integers,
)
from merge_core.checkpoint.quantized.stored import QuantizedTensor, Stored, as_scales
from merge_core.errors import MergeError


def read_packed(module: str, stored: Stored) -> QuantizedTensor:
    """How the weight of a module is read."""
    floats = stored.dtype(f"{module}.weight_packed") is torch.uint8
    return _floats(module, stored) if floats else _integers(module, stored)


def _integers(module: str, stored: Stored) -> QuantizedTensor:
    """``w = (q - z) s``; q is unsigned, and z half of its range where it is not stored."""
    codes, scales = f"{module}.weight_packed", f"{module}.weight_scale"
    bits = stored.settings.scheme(module).bits
    if bits is None or 32 % bits:
        raise MergeError(f"{codes}: integers of {bits} bits are not read. Name the unquantized model")
    *stack, rows, words = stored.shape(codes)
    shape = (*stack, rows, words * 32 // bits)
    zeros, order = stored.has(f"{module}.weight_zero_point"), stored.has(f"{module}.weight_g_idx")
    if zeros and (stack or stored.dtype(zeros[0]) is not torch.int32):
        raise MergeError(f"{zeros[0]}: zero points that are not packed are not read. Name the unquantized model")
    grid, block = stored.grid(module, shape, scales)

    def values(packed: Tensor, scale: Tensor, *rest: Tensor) -> Tensor:
        numbers, scale = unpack_integers(packed, bits), scale.to(torch.float32).reshape(grid)
        zero = torch.full_like(scale, float(1 << (bits - 1)))
        if zeros:  # packed along the rows
            zero = unpack_integers(rest[0].T.contiguous(), bits).T[:rows]
        if order:  # the group of every column
            groups = rest[-1].to(torch.int64)
            return (numbers - zero[:, groups]) * scale[:, groups]
        return scale_blocks(numbers - spread_blocks(zero, shape, block), scale, block)

    return QuantizedTensor(shape, (codes, scales, *zeros, *order), values)


def _floats(module: str, stored: Stored) -> QuantizedTensor:
    """``w = q s / g``: q in E2M1, s of 16 or 32 entries of a row, g of the whole tensor where there is one."""
    codes, scales = f"{module}.weight_packed", f"{module}.weight_scale"
    *stack, rows, pairs = stored.shape(codes)
    shape = (*stack, rows, pairs * 2)
    grid, block = stored.grid(module, shape, scales)

    def values(packed: Tensor, scale: Tensor, whole: Tensor | None = None) -> Tensor:
        scale = as_scales(scale).reshape(grid)
        return scale_blocks(unpack_e2m1(packed), scale if whole is None else scale / whole.to(torch.float32), block)

    return QuantizedTensor(shape, (codes, scales, *stored.has(f"{module}.weight_global_scale")), values)
