"""The nearest matrix of a low rank, of a rank that is given or that keeps a share of the energy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Up to this many rows or columns all singular values cost less than a second; of larger matrices only those that
# are kept are found.
EXACT_SIZE = 1024
# Columns beyond the rank and power iterations of the randomised range finder: with them it is as good as exact for
# spectra that fall slowly, as those of task vectors do (section 1.6 of the paper, with steps to spare).
_OVERSAMPLING, _POWER_ITERATIONS = 16, 4


@dataclass(frozen=True, slots=True)
class LowRank:
    """``up @ down``, with the singular values shared evenly between both.

    Attributes:
        down: ``A`` of a LoRA, [rank, inputs], float32.
        up: ``B`` of a LoRA, [outputs, rank], float32.
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Number of singular values kept, 1 at least."""
        return self.down.shape[0]


def low_rank(matrix: Tensor, rank: int | None = None, energy: float | None = None, seed: int = 0) -> LowRank:
    """The best approximation of a matrix by one of low rank (Eckart-Young), of large ones by randomised SVD.

    The error in the Frobenius norm is at most ``sqrt(1 - energy)`` of the matrix, unless ``rank`` ends it before.

    Args:
        matrix: [outputs, inputs], float32, not all zeros.
        rank: the largest rank, 1 or more; None for no limit.
        energy: the share in (0, 1] of the sum of squared singular values to keep, with as few of them as do; None for
            as many as ``rank`` allows.
        seed: of the randomised SVD (https://arxiv.org/abs/0909.4061).
    """
    limit = min(matrix.shape) if rank is None else min(rank, *matrix.shape)
    wanted = math.inf if energy is None else energy * float(matrix.square().sum(dtype=torch.float64))
    if min(matrix.shape) <= EXACT_SIZE:
        return _exact(matrix, limit, wanted)
    guess = limit if energy is None else min(limit, 64)
    while True:
        columns = guess + _OVERSAMPLING
        if columns >= min(matrix.shape) // 2:  # no cheaper any more
            return _exact(matrix, limit, wanted)
        with torch.random.fork_rng([] if matrix.device.type == "cpu" else [matrix.device]):
            torch.manual_seed(seed)
            left, values, right = torch.svd_lowrank(matrix, columns, _POWER_ITERATIONS)
        if guess == limit or float(values[:guess].square().sum(dtype=torch.float64)) >= wanted:
            return _kept(left, values, right.T, min(guess, limit), wanted)
        guess = min(2 * guess, limit)


def _exact(matrix: Tensor, limit: int, wanted: float) -> LowRank:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return _kept(left, values, right, limit, wanted)


def _kept(left: Tensor, values: Tensor, right: Tensor, limit: int, wanted: float) -> LowRank:
    kept = values.square().cumsum(0, dtype=torch.float64)
    rank = min(int((kept < wanted).sum()) + 1, limit)
    root = values[:rank].sqrt()
    return LowRank(root.unsqueeze(1) * right[:rank], left[:, :rank] * root)
