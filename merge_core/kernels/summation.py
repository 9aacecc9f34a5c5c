"""Sums whose bits do not depend on the number of threads.

A reduction to one number is split among the threads, so its rounding changes with their number. Reductions of
fixed-size blocks are not split; the block sums are then few enough to be added by one thread, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.kernels import dispatch

BLOCK = 4096
# Below this many elements torch reduces on one thread (its grain size is 32768).
ONE_THREAD = 16384


def stable_sum(values: Tensor) -> float:
    """Sum all elements of a float tensor of any shape; the same bits with any number of threads."""
    flat = values.reshape(-1)
    while flat.numel() > ONE_THREAD:
        whole = flat.numel() // BLOCK * BLOCK
        blocks = flat[:whole].view(-1, BLOCK).sum(dim=1)
        rest = flat[whole:].sum(dtype=torch.float64).reshape(1)
        flat = torch.cat([blocks.to(torch.float64), rest])
    return float(flat.sum(dtype=torch.float64))


def stable_dot(left: Tensor, right: Tensor) -> float:
    """Inner product of two tensors of equal shape, flattened, in float64.

    Products rounded to float32 would leave half of an angle's digits where directions nearly agree or oppose. One
    pass, the same bits on every device.

    Args:
        left, right: of at most float32.
    """
    return dispatch.contract(left.reshape(-1), [right.reshape(-1)], None, [None], scales=[1.0])[0]


def stable_norm(values: Tensor) -> float:
    """Euclidean norm of a tensor, flattened."""
    return float(stable_dot(values, values) ** 0.5)
