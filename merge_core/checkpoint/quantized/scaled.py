"""Float8 and int8 weights beside their scales: ``w = (q - z) s``.

One scale for the tensor, a row, a group of a row, or a block: ``weight_scale_inv`` as DeepSeek-V3 and Qwen3-FP8 name it
(the inverse of what the weight was multiplied by), ``weight_scale`` of compressed-tensors, FBGEMM and ModelOpt; ``SCB``
of LLM.int8 (https://arxiv.org/abs/2208.07339) is the largest magnitude of each row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.checkpoint.quantized.number_formats import scale_blocks, spread_blocks
from merge_core.checkpoint.quantized.stored import QuantizedTensor, Stored, as_scales, check_shape

_CODES = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)


def read_scaled(name: str, stored: Stored) -> QuantizedTensor | None:
    """How a tensor is read that has its codes under its own name; None for one that is no such."""
    shape = stored.shape(name)
    if stored.dtype(name) not in _CODES or len(shape) < 2:
        return None
    module = name.removesuffix(".weight")
    for largest in stored.has(f"{module}.SCB"):
        check_shape(largest, stored.shape(largest), shape[:1])
        return QuantizedTensor(
            shape, (name, largest), lambda codes, most: codes.to(torch.float32) * (most.view(-1, 1) / 127)
        )
    scales = next(iter(stored.has(f"{name}_scale_inv", f"{name}_scale")), None)
    if scales is None:
        return None
    grid, block = stored.grid(module, shape, scales)
    # Of float8 there are zero points too, which are zeros.
    zeros = stored.has(f"{name}_zero_point") if stored.dtype(name) is torch.int8 else ()

    def values(codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        numbers = codes.to(torch.float32)
        if zero is not None:
            numbers = numbers - spread_blocks(zero.to(torch.float32).reshape(grid), shape, block)
        return scale_blocks(numbers, as_scales(scale).reshape(grid), block)

    return QuantizedTensor(shape, (name, scales, *zeros), values)
