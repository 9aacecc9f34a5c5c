"""How quantized checkpoints store numbers: packed integers, four-bit floats, and scales for blocks of a matrix.

Float8 is a dtype of torch. E2M1 (four bits) and E8M0 (scales that are powers of two) are those of the OCP Microscaling
formats (https://arxiv.org/abs/2310.10537).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The three low bits of a code choose the magnitude, the fourth is the sign.
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_E2M1_EXPONENT = 2  # of its largest
_E8M0_BIAS = 127

Block = tuple[int, int]
"""Rows and columns that share a scale."""


def unpack_integers(words: Tensor, bits: int) -> Tensor:
    """Take unsigned integers out of the last dimension of packed words, those of the lowest bits first.

    Args:
        words: int32 ``[..., n]``.
        bits: of each integer, a divisor of 32.

    Returns:
        float32 ``[..., 32 n / bits]``.
    """
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    return ((words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2).to(torch.float32)


def unpack_e2m1(codes: Tensor) -> Tensor:
    """Four-bit floats of bytes that hold two each, that of the low bits first.

    Args:
        codes: uint8 ``[..., n]``.

    Returns:
        float32 ``[..., 2 n]``.
    """
    values = torch.tensor([*_E2M1, *(-value for value in _E2M1)])
    return values[unpack_nibbles(codes)]


def unpack_nibbles(codes: Tensor) -> Tensor:
    """The two halves of every byte, the low one first: uint8 ``[..., n]`` to int32 ``[..., 2 n]``."""
    return torch.stack((codes & 0xF, codes >> 4), dim=-1).flatten(-2).to(torch.int32)


def pack_e2m1(values: Tensor, exponents: Tensor) -> Tensor:
    """Round to four-bit floats, ties to even, what is too large to the largest; two to a byte.

    Args:
        values: float32 ``[..., groups, 2 n]``.
        exponents: E8M0, uint8 ``[..., groups]``, that their groups are divided by.

    Returns:
        uint8 ``[..., groups, n]``.
    """
    scaled = values / exponents_to_scales(exponents).unsqueeze(-1)
    levels = torch.tensor(_E2M1)
    middles = (levels[1:] + levels[:-1]) / 2
    # A tie goes to the code that is even: up from 0.25, 0.75, … only every second time.
    below = torch.searchsorted(middles, scaled.abs().contiguous())
    above = torch.searchsorted(middles, scaled.abs().contiguous(), right=True)
    magnitude = torch.where(below % 2 == 0, below, above)
    codes = (magnitude | ((scaled < 0).to(torch.int64) << 3)).to(torch.uint8)
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def scales_to_exponents(largest: Tensor) -> Tensor:
    """E8M0 of groups of four-bit floats by their largest magnitudes: ``floor(log2(max)) - 2``."""
    _, exponents = torch.frexp(largest)  # max = m 2^e, m in [1/2, 1)
    return (exponents - 1 - _E2M1_EXPONENT + _E8M0_BIAS).clamp(0, 254).to(torch.uint8)


def exponents_to_scales(exponents: Tensor) -> Tensor:
    """E8M0: ``2^(byte - 127)``, in float32."""
    return torch.exp2(exponents.to(torch.float32) - _E8M0_BIAS)


def scale_blocks(values: Tensor, scales: Tensor, block: Block) -> Tensor:
    """Multiply every block of a matrix, or of each matrix of a stack, by its scale.

    Args:
        values: float32 ``[..., rows, columns]``; written over where it can be.
        scales: float32 ``[..., ceil(rows / block[0]), ceil(columns / block[1])]``.
        block: its size; blocks at the edges may be smaller.

    Returns:
        float32, of the shape of ``values``.
    """
    if values.shape[-2] % block[0] == 0 and values.shape[-1] % block[1] == 0:
        return (tiles(values, block) * scales[..., :, None, :, None]).view(values.shape)
    return values * spread_blocks(scales, values.shape, block)


def tiles(values: Tensor, block: Block) -> Tensor:
    """A matrix by blocks, ``[..., rows, columns]`` to ``[..., n, block[0], m, block[1]]``; it has none at edges."""
    *stack, rows, columns = values.shape
    return values.reshape(*stack, rows // block[0], block[0], columns // block[1], block[1])


def spread_blocks(scales: Tensor, shape: Sequence[int], block: Block) -> Tensor:
    """Repeat the number of each block for the entries of a matrix of a shape."""
    whole = scales.repeat_interleave(block[0], dim=-2).repeat_interleave(block[1], dim=-1)
    return whole[..., : shape[-2], : shape[-1]]
