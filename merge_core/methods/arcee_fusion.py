"""Take over the other model's most important changes: `arcee_fusion`."""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.methods.method import Method
from merge_core.methods.registry import register

ELEMENTS_AT_ONCE = 1 << 20


def arcee_fusion(base: Tensor, other: Tensor) -> Tensor:
    """Take the other model's value where the importance ``|δ| · KL`` is at or above ``median + 1.5·IQR``.

    ``KL`` is that of the softmax of the other's row against the base's. Arcee AI, "Arcee Fusion", 2025.

    Args:
        base: the base model's tensor.
        other: the other model's tensor, same shape.

    Returns:
        float32 tensor of the same shape.
    """
    if base.numel() == 0:
        return base.clone()
    importance = (other - base).abs_() * _divergence(base, other)
    low, median, high = _quartiles(importance.reshape(-1))
    threshold = median + 1.5 * (high - low)
    return torch.where(importance >= threshold, other, base)


def _divergence(base: Tensor, other: Tensor) -> Tensor:
    """KL of every row, shape (..., 1).

    In float64, some rows at a time: of rows that hardly differ, the logarithms' differences cancel in their sum but for
    their squares, which float32 does not hold.
    """
    width = base.shape[-1] if base.dim() else 1
    rows = [tensor.reshape(-1, width) for tensor in (base, other)]
    found = base.new_empty(len(rows[0]), 1)
    at_once = max(ELEMENTS_AT_ONCE // width, 1)
    for start in range(0, len(found), at_once):
        block = slice(start, start + at_once)
        log_base, log_other = (torch.log_softmax(part[block].double(), dim=-1) for part in rows)
        found[block] = (log_other.exp() * (log_other - log_base)).sum(dim=-1, keepdim=True)
    return found.view(*base.shape[:-1], 1) if base.dim() else found.view(())


def _quartiles(values: Tensor) -> list[Tensor]:
    """The elements at positions ``⌊q·(n−1)⌋`` of the sorted values: none is interpolated."""
    ordered = values.sort().values
    return [ordered[int(share * (values.numel() - 1))] for share in (0.25, 0.5, 0.75)]


register(
    Method(
        "arcee_fusion",
        "Arcee Fusion",
        lambda inputs: arcee_fusion(inputs.base_tensor, inputs.others[0]),
        (),
        "required",
        "https://arcee.ai",
        maximum_models=1,
        on_host=True,
    )
)
