"""Move towards the other model where the two are near: `nearswap`."""

from __future__ import annotations

import torch
from torch import Tensor

from merge_core.methods.method import REQUIRED, Method, MethodInputs, Parameter, SearchRange
from merge_core.methods.registry import register


def nearswap(base: Tensor, other: Tensor, t: float) -> Tensor:
    """``a + clamp(t/|a−b|, 0, 1)·(b−a)``: differences up to ``t`` are taken over, larger ones by ``t``.

    alchemonaut, QuartetAnemoi-70B-t0.0001, 2024.

    Args:
        base: ``a``.
        other: ``b``, same shape.
        t: the distance moved at most; 0 returns the base.

    Returns:
        float32 tensor of the same shape.
    """
    if t <= 0.0:
        return base.clone()
    difference = other - base
    # clamp(t/|d|, 0, 1)·d is d cut to [−t, t], which needs no division by zero.
    return torch.clamp(difference, -t, t).add_(base)


def _run(inputs: MethodInputs) -> Tensor:
    return nearswap(inputs.base_tensor, inputs.others[0], inputs.number("t"))


register(
    Method(
        "nearswap",
        "NearSwap",
        _run,
        (
            Parameter(
                "t",
                "number",
                "global",
                REQUIRED,
                SearchRange(1e-5, 1e-1, log=True),
                "distance moved at most",
                least=0.0,
            ),
        ),
        "required",
        "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
        maximum_models=1,
    )
)
