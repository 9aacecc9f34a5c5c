"""Uniform random numbers from a counter: element ``i`` depends on nothing but a key and ``i``."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# One cache-sized block at a time: the integer mixing below makes two dozen passes over it. Under torch's grain
# size (32768), so that no pass wakes the other threads.
BLOCK = 1 << 14
# Elsewhere every pass costs a launch, and a block takes hundreds of thousands of elements to be worth it.
DEVICE_BLOCK = 1 << 23

BITS = 16
"""Of a draw: a probability is a multiple of 2⁻¹⁶, which is far less than what chance leaves open in any tensor."""

GENERATOR = "2"
"""Another number wherever the same key gives other draws: what was made with those of before is something else."""


def random_key(seed: int, model: str, tensor: str) -> int:
    """64 bits that depend on nothing but the seed, the model reference as written and the output tensor's name."""
    text = f"{seed}\0{model}\0{tensor}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _as_int32(word: int) -> int:
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >= 1 << 31 else word


def _mix(words: Tensor, scratch: Tensor) -> None:
    """`lowbias32` of int32 words, in place."""
    for round_index, shift in enumerate(_SHIFTS):
        torch.bitwise_right_shift(words, shift, out=scratch)
        # The shift is arithmetic; the mask makes it a logical one.
        scratch.bitwise_and_((1 << (32 - shift)) - 1)
        words.bitwise_xor_(scratch)
        if round_index < len(_MULTIPLIERS):
            words.mul_(_as_int32(_MULTIPLIERS[round_index]))


# The best known two-round hash of Chris Wellons' hash-prospector: bias 0.11, a bijection of 32-bit words.
_MULTIPLIERS = (0x21F0AAAD, 0xD35A2D97)
_SHIFTS = (16, 15, 15)


def draws(key: int, count: int, device: torch.device | str = "cpu", start: int = 0) -> Tensor:
    """Draw uniform integers of `BITS` bits, element ``i`` a function of ``(key, i)`` alone.

    Elements ``2j`` and ``2j + 1`` are the lower and the upper half of ``lowbias32(lowbias32(j xor k₀) + k₁)`` with
    ``k₀, k₁`` the halves of the key: the same bits on any device, with any number of threads, and for any part of the
    range drawn alone.

    Args:
        key: 64 bits, as from `random_key`.
        count: how many, at most 2³³.
        start: the first element's number, an even one.

    Returns:
        int32 tensor of shape (count,).
    """
    pairs = (count + 1) // 2
    result = torch.empty((pairs, 2), dtype=torch.int32, device=device)
    low, high = _as_int32(key), _as_int32(key >> 32)
    length = BLOCK if result.device.type == "cpu" else DEVICE_BLOCK
    counter = torch.arange(min(pairs, length), dtype=torch.int32, device=device)
    words, scratch = torch.empty_like(counter), torch.empty_like(counter)
    for place in range(0, pairs, length):
        size = min(length, pairs - place)
        block, spare = words[:size], scratch[:size]
        torch.add(counter[:size], _as_int32(start // 2 + place), out=block)
        block.bitwise_xor_(low)
        _mix(block, spare)
        block.add_(high)
        _mix(block, spare)
        torch.bitwise_and(block, 0xFFFF, out=result[place : place + size, 0])
        torch.bitwise_right_shift(block, 16, out=spare)
        torch.bitwise_and(spare, 0xFFFF, out=result[place : place + size, 1])
    return result.view(-1)[:count]
