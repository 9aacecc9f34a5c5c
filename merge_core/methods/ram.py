"""Keep what one model alone changed, average what several changed: `ram`, `ramplus_tl`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merge_core.methods.method import Method, MethodInputs, Parameter, SearchRange
from merge_core.methods.registry import register


def ram(base: Tensor, others: Sequence[Tensor], *, epsilon: float, gain: float, ceiling: float) -> Tensor:
    """Add entries changed by exactly one model whole, and the average of those changed by several.

    An entry is changed when ``|δᵢ| > epsilon``. With a ``gain`` the unique entries of model ``i`` are scaled by
    ``1 + gain · clamp(sharedᵢ/uniqueᵢ, 0, ceiling)``, the counts being those of its changed entries in this tensor.
    "Reinforced Agent Merging", arXiv:2601.13572.

    Args:
        base: the base model's tensor.
        others: the other models' tensors, same shape.
        epsilon: largest difference that is no change.
        gain: ``r``; 0 is plain RAM.
        ceiling: ``alpha``.

    Returns:
        float32 tensor of the base's shape.
    """
    deltas = [other - base for other in others]
    changes = [delta.abs() > epsilon for delta in deltas]
    changed_by = torch.zeros_like(base)
    for change in changes:
        changed_by.add_(change)
    result = torch.zeros_like(base)
    unique = changed_by == 1
    for delta, change in zip(deltas, changes, strict=True):
        term = delta * change
        if gain != 0.0:
            own = int((change & unique).sum())
            shared = int(change.sum()) - own
            ratio = min(max(shared / own, 0.0), ceiling) if own else 0.0
            term = torch.where(unique, term * (1.0 + gain * ratio), term)
        result.add_(term)
    return result.div_(changed_by.clamp_min_(1.0)).add_(base)


def _run_ram(inputs: MethodInputs) -> Tensor:
    return ram(inputs.base_tensor, inputs.others, epsilon=inputs.number("epsilon"), gain=0.0, ceiling=0.0)


def _run_ramplus(inputs: MethodInputs) -> Tensor:
    return ram(
        inputs.base_tensor,
        inputs.others,
        epsilon=inputs.number("epsilon"),
        gain=inputs.number("r"),
        ceiling=inputs.number("alpha"),
    )


EPSILON = Parameter(
    "epsilon", "number", "global", 1e-5, SearchRange(1e-6, 1e-2, log=True), "largest difference that is no change"
)

register(
    Method("ram", "Reinforced Agent Merging", _run_ram, (EPSILON,), "required", "https://arxiv.org/abs/2601.13572"),
    Method(
        "ramplus_tl",
        "Reinforced Agent Merging Plus (Tensor-Local)",
        _run_ramplus,
        (
            EPSILON,
            Parameter("r", "number", "global", 0.1, SearchRange(0.0, 0.5), "gain of the unique entries"),
            Parameter("alpha", "number", "global", 0.2, SearchRange(0.0, 1.0), "largest shared/unique ratio counted"),
        ),
        "required",
        "https://arxiv.org/abs/2601.13572",
    ),
)
