"""Uniform random numbers from a counter: element ``i`` depends on nothing but a key and ``i``."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# One cache-sized block at a time: the integer mixing below makes two dozen passes over it. Under torch's grain
# size (32768), so that no pass wakes the other threads.
BLOCK = 1 << 14
# Elsewhere every pass costs a launch, and a block takes hundreds of thousands of elements to be worth it.
DEVICE_BLOCK = 1 << 24


def random_key(seed: int, model: str, tensor: str) -> int:
    """64 bits that depend on nothing but the seed, the model reference as written and the output tensor's name."""
    text = f"{seed}\0{model}\0{tensor}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _as_int32(word: int) -> int:
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >= 1 << 31 else word


def _mix(words: Tensor, scratch: Tensor, multipliers: tuple[int, int, int], shifts: tuple[int, ...]) -> None:
    """Mix int32 words in place: xor-shift (logical) and multiply, three rounds and a last xor-shift."""
    for round_index, shift in enumerate(shifts):
        torch.bitwise_right_shift(words, shift, out=scratch)
        # The shift is arithmetic; the mask makes it a logical one.
        scratch.bitwise_and_((1 << (32 - shift)) - 1)
        words.bitwise_xor_(scratch)
        if round_index < len(multipliers):
            words.mul_(_as_int32(multipliers[round_index]))


# The `triple32` integer hash of Chris Wellons' hash-prospector: bias 0.02, a bijection of 32-bit words.
_TRIPLE32_MULTIPLIERS = (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB)
_TRIPLE32_SHIFTS = (17, 11, 15, 14)


def uniform(key: int, count: int, device: torch.device | str = "cpu", start: int = 0) -> Tensor:
    """Draw uniform numbers in [0, 1), element ``i`` a function of ``(key, i)`` alone.

    Element ``i`` is ``triple32(triple32(i xor k₀) + k₁)`` with ``k₀, k₁`` the halves of the key: the same bits
    on any device, with any number of threads, and for any part of the range drawn alone.

    Args:
        key: 64 bits, as from `random_key`.
        count: how many, at most 2³².
        start: the first element's number, a multiple of `DEVICE_BLOCK`.

    Returns:
        float32 tensor of shape (count,), multiples of 2⁻²⁴.
    """
    result = torch.empty(count, dtype=torch.float32, device=device)
    low, high = _as_int32(key), _as_int32(key >> 32)
    length = BLOCK if result.device.type == "cpu" else DEVICE_BLOCK
    counter = torch.arange(min(count, length), dtype=torch.int32, device=device)
    words, scratch = torch.empty_like(counter), torch.empty_like(counter)
    for place in range(0, count, length):
        size = min(length, count - place)
        block, spare = words[:size], scratch[:size]
        # Blocks are a power of two, so `start + place + i` has no carries and xor with it is xor with each.
        torch.bitwise_xor(counter[:size], _as_int32(low ^ (start + place)), out=block)
        _mix(block, spare, _TRIPLE32_MULTIPLIERS, _TRIPLE32_SHIFTS)
        block.add_(high)
        _mix(block, spare, _TRIPLE32_MULTIPLIERS, _TRIPLE32_SHIFTS)
        torch.bitwise_right_shift(block, 8, out=spare)
        spare.bitwise_and_(0xFFFFFF)
        torch.mul(spare, 2.0**-24, out=result[place : place + size])
    return result
