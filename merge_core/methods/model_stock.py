"""Interpolation between the base and the models' centre, from the angle between task vectors: `model_stock`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merge_core.kernels.summation import stable_dot, stable_norm
from merge_core.methods.method import Method, MethodInputs, Parameter
from merge_core.methods.registry import register

OPPOSED = 1e-6
"""A denominator of ``t`` as small as this is rounding error: the task vectors cancel."""


def model_stock(base: Tensor, others: Sequence[Tensor], *, filter_wise: bool) -> Tensor:
    """``t·mean(xᵢ) + (1−t)·b`` with ``t = N·c / (1 + (N−1)·c)``, ``c`` the mean pairwise cosine of task vectors.

    Jang et al. 2024, "Model Stock", arXiv:2403.19522, section 4. Task vectors that oppose each other, where ``t`` has
    a pole, agree on nothing: the base stays.

    Args:
        base: the base model's tensor.
        others: N ≥ 2 models' tensors, same shape.
        filter_wise: one cosine per row of a matrix instead of one for the tensor.

    Returns:
        float32 tensor of the base's shape.
    """
    count = len(others)
    deltas = [other - base for other in others]
    pairs = [(i, j) for i in range(count) for j in range(i)]
    if filter_wise and base.dim() > 1:
        rows = [delta.view(delta.shape[0], -1) for delta in deltas]
        cosines = [torch.cosine_similarity(rows[i], rows[j], dim=-1, eps=1e-12) for i, j in pairs]
        mean_cosine = torch.stack(cosines).mean(dim=0).view(-1, *[1] * (base.dim() - 1))
    else:
        norms = [stable_norm(delta) for delta in deltas]
        values = [
            stable_dot(deltas[i], deltas[j]) / (norms[i] * norms[j]) if norms[i] * norms[j] > 0.0 else 0.0
            for i, j in pairs
        ]
        mean_cosine = torch.tensor(sum(values) / len(values), dtype=torch.float64, device=base.device)
    pole = 1.0 + (count - 1) * mean_cosine
    share = torch.where(pole.abs() < OPPOSED, 0.0, count * mean_cosine / pole)
    mean = torch.zeros_like(base)
    for delta in deltas:
        mean.add_(delta, alpha=1.0 / count)
    return mean.mul_(share).add_(base)


def _run(inputs: MethodInputs) -> Tensor:
    return model_stock(inputs.base_tensor, inputs.others, filter_wise=inputs.flag("filter_wise"))


register(
    Method(
        "model_stock",
        "Model Stock",
        _run,
        (Parameter("filter_wise", "flag", "global", False, None, "one cosine per row"),),
        "required",
        "https://arxiv.org/abs/2403.19522",
        minimum_models=2,
    )
)
