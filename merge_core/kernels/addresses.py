"""Tensors as compiled kernels are given them: an address and a dtype code."""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.kernels.constants import CODES


def readable(tensor: Tensor) -> Tensor:
    """The tensor in a form that kernels read. It must be held until they are done."""
    return (tensor if tensor.dtype in CODES else tensor.to(torch.float32)).contiguous()


def address(tensor: Tensor | None) -> tuple[int, int]:
    """Address and dtype code of a readable tensor; 0 and 0 of none."""
    return (0, 0) if tensor is None else (tensor.data_ptr(), CODES[tensor.dtype])
