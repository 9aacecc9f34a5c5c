"""GPTQ and AWQ: ``w = s (q - z)`` with integers in words of 32 bits, stored transposed.

GPTQ (https://arxiv.org/abs/2210.17323) packs along the inputs, whose groups ``g_idx`` may reorder; AWQ
(https://arxiv.org/abs/2306.00978) along the outputs, in an order that suits its kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.checkpoint.quantized.number_formats import unpack_integers
from merge_core.checkpoint.quantized.stored import QuantizedTensor, Stored, check_shape
from merge_core.errors import MergeError

# Where each of the eight integers of a word of AWQ's is in it.
_AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]
_AWQ_BITS = 4


def read_words(module: str, stored: Stored) -> QuantizedTensor:
    """How the weight of a module is read of its ``qweight``, ``qzeros`` and ``scales``."""
    return _awq(module, stored) if stored.settings.method == "awq" else _gptq(module, stored)


def _gptq(module: str, stored: Stored) -> QuantizedTensor:
    codes, zeros, scales = (f"{module}.{part}" for part in ("qweight", "qzeros", "scales"))
    groups, outputs = stored.shape(scales)
    bits = stored.shape(zeros)[1] * 32 // outputs
    if bits not in (2, 4, 8):
        raise MergeError(f"{codes}: integers of {bits} bits are not read. Name the unquantized model")
    inputs = stored.shape(codes)[0] * 32 // bits
    check_shape(codes, stored.shape(codes), (inputs * bits // 32, outputs))
    # The first release of the format stores zero points less one.
    less = 0 if stored.settings.checkpoint_format == "gptq_v2" else 1

    def values(words: Tensor, zero: Tensor, scale: Tensor, order: Tensor | None = None) -> Tensor:
        numbers = unpack_integers(words.T.contiguous(), bits)
        zero, scale = (unpack_integers(zero, bits) + less).T, scale.to(torch.float32).T
        group = torch.arange(inputs) // (inputs // groups) if order is None else order.to(torch.int64)
        return (numbers - zero[:, group]) * scale[:, group]

    return QuantizedTensor((outputs, inputs), (codes, zeros, scales, *stored.has(f"{module}.g_idx")), values)


def _awq(module: str, stored: Stored) -> QuantizedTensor:
    codes, zeros, scales = (f"{module}.{part}" for part in ("qweight", "qzeros", "scales"))
    (inputs, words), (groups, outputs) = stored.shape(codes), stored.shape(scales)
    if words * 32 != outputs * _AWQ_BITS or inputs % groups:
        raise MergeError(f"{codes}: not packed as AWQ's gemm kernels have it. Name the unquantized model")

    def unpack(packed: Tensor) -> Tensor:
        numbers = unpack_integers(packed, _AWQ_BITS)
        return numbers.view(len(packed), -1, len(_AWQ_ORDER))[..., _AWQ_ORDER].flatten(-2)

    def values(packed: Tensor, zero: Tensor, scale: Tensor) -> Tensor:
        numbers = unpack(packed).view(groups, -1, outputs) - unpack(zero).unsqueeze(1)
        return (numbers * scale.to(torch.float32).unsqueeze(1)).flatten(0, 1).T.contiguous()

    return QuantizedTensor((outputs, inputs), (codes, zeros, scales), values)
