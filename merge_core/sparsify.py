"""Which entries of a task vector are kept: by magnitude, or at random from a counter-based generator."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from merge_core.summation import stable_sum

# One cache-sized block at a time: the integer mixing below makes two dozen passes over it. Under torch's grain
# size (32768), so that no pass wakes the other threads.
BLOCK = 1 << 14


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


def uniform(key: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw uniform numbers in [0, 1), element ``i`` a function of ``(key, i)`` alone.

    Element ``i`` is ``triple32(triple32(i xor k₀) + k₁)`` with ``k₀, k₁`` the halves of the key: the same bits
    on any device, with any number of threads, and for any part of the range drawn alone.

    Args:
        key: 64 bits, as from `random_key`.
        count: how many, at most 2³².

    Returns:
        float32 tensor of shape (count,), multiples of 2⁻²⁴.
    """
    result = torch.empty(count, dtype=torch.float32, device=device)
    low, high = _as_int32(key), _as_int32(key >> 32)
    counter = torch.arange(min(count, BLOCK), dtype=torch.int32, device=device)
    words, scratch = torch.empty_like(counter), torch.empty_like(counter)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        block, spare = words[:size], scratch[:size]
        # Blocks are a power of two, so `start + i` has no carries and xor with it is xor with both.
        torch.bitwise_xor(counter[:size], _as_int32(low ^ start), out=block)
        _mix(block, spare, _TRIPLE32_MULTIPLIERS, _TRIPLE32_SHIFTS)
        block.add_(high)
        _mix(block, spare, _TRIPLE32_MULTIPLIERS, _TRIPLE32_SHIFTS)
        torch.bitwise_right_shift(block, 8, out=spare)
        spare.bitwise_and_(0xFFFFFF)
        torch.mul(spare, 2.0**-24, out=result[start : start + size])
    return result


def random_mask(draws: Tensor, density: float) -> Tensor:
    """Keep an entry when its draw is below the density (DARE, arXiv:2311.03099, eq. 3).

    The draws do not depend on the density, so an entry kept at density 0.4 is kept at 0.5 too.
    """
    return draws < density


def magnitude_mask(values: Tensor, density: float) -> Tensor:
    """Keep exactly the ``⌊density·n⌋`` entries of largest magnitude (TIES trim, arXiv:2306.01708, section 4.2).

    Among equal magnitudes at the threshold the first in memory order are kept, so the result is the same on
    any device and with any number of threads.

    Returns:
        bool tensor of the shape of ``values``.
    """
    count = values.numel()
    return top_mask(values.abs().reshape(-1), int(density * count)).view(values.shape)


def outlier_mask(values: Tensor, density: float, gamma: float) -> Tensor:
    """Drop the ``⌊γ·n⌋`` largest magnitudes and so many of the smallest that ``⌊density·n⌋`` remain.

    When ``γ > 1 − density`` fewer of the largest are dropped. Model Breadcrumbs, Davari and Belilovsky 2023,
    arXiv:2312.06795, section 3.

    Returns:
        bool tensor of the shape of ``values``.
    """
    count = values.numel()
    kept = min(int(density * count), count)
    outliers = min(int(gamma * count), count - kept)
    magnitude = values.abs().reshape(-1)
    return top_mask(magnitude, kept + outliers).logical_xor_(top_mask(magnitude, outliers)).view(values.shape)


def top_mask(magnitude: Tensor, kept: int) -> Tensor:
    """Mark the ``kept`` largest of a flat tensor, ties at the threshold in memory order."""
    if kept <= 0 or kept >= magnitude.numel():
        return torch.full_like(magnitude, kept > 0, dtype=torch.bool)
    threshold = kth_largest(magnitude, kept)
    mask = magnitude > threshold
    missing = kept - int(mask.sum())
    ties = (magnitude == threshold).nonzero().view(-1)[:missing]
    mask[ties] = True
    return mask


def rank_probabilities(values: Tensor, density: float, epsilon: float) -> Tensor:
    """Keep probabilities that rise linearly with the magnitude rank in its row, from ``d − ε`` to ``d + ε``.

    DELLA's MagPrune, Deep et al. 2024, arXiv:2406.11617, section 3.1. A tensor of one dimension is one row.

    Returns:
        float32 tensor of the shape of ``values``.
    """
    length = values.shape[-1] if values.dim() else 1
    rows = values.abs().reshape(-1, length)
    order = rows.argsort(dim=-1, stable=True)
    steps = torch.linspace(density - epsilon, density + epsilon, length, device=values.device)
    if length == 1:
        steps.fill_(density)
    return torch.empty_like(rows).scatter_(-1, order, steps.expand_as(rows)).view(values.shape)


def kth_largest(magnitude: Tensor, k: int) -> Tensor:
    """The ``k``-th largest element (1-based) of a flat float32 tensor, as a 0-d tensor."""
    if magnitude.device.type == "cpu":
        # numpy's vectorised selection is ten times faster than torch's on a CPU.
        position = magnitude.numel() - k
        return torch.from_numpy(np.partition(magnitude.numpy(), position)[position : position + 1])[0]
    return torch.kthvalue(magnitude, magnitude.numel() - k + 1).values


def rescale_to_l1(sparse: Tensor, dense: Tensor) -> Tensor:
    """Scale ``sparse`` so that its L1 norm equals that of ``dense``; zeros stay zeros."""
    remaining = stable_sum(sparse.abs())
    if remaining == 0.0:
        return sparse
    return sparse * (stable_sum(dense.abs()) / remaining)
