"""Select, calculate, erase: `sce`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merge_core.kernels import dispatch
from merge_core.kernels.constants import NO_WEIGHT
from merge_core.kernels.order_statistics import TaskVectorStatistics, largest
from merge_core.kernels.selection import NOTHING
from merge_core.kernels.summation import stable_dot
from merge_core.methods.method import Method, MethodInputs, Parameter, SearchRange
from merge_core.methods.registry import register
from merge_core.methods.shared_parameters import INT8_MASK


def sce(base: Tensor, others: Sequence[Tensor], *, select_topk: float) -> Tensor:
    """Merge the positions on which the models differ most, each model weighted by its energy there.

    Select the ``select_topk`` share of positions with the highest variance of the task vectors over models;
    calculate weights ``wᵢ = mean(δᵢ²) / Σ mean(δⱼ²)`` over what is left; erase the terms whose sign is not the
    elected one; add their weighted mean to the base. Wan et al. 2024, "FuseChat", arXiv:2408.07990, section 3.3.

    Args:
        base: the base model's tensor.
        others: the other models' tensors, same shape.
        select_topk: share of positions kept, in [0, 1].

    Returns:
        float32 tensor of the base's shape.
    """
    deltas = [other - base for other in others]
    if select_topk < 1.0:
        mask = _varying_most(deltas, select_topk)
        deltas = [delta * mask for delta in deltas]
    energies = [stable_dot(delta, delta) for delta in deltas]
    total = sum(energies)
    if total == 0.0:
        return base.clone()
    weights = [energy / total for energy in energies]
    terms = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    return _elected_mean(terms, weights, deltas).add_(base)


def _varying_most(deltas: Sequence[Tensor], share: float) -> Tensor:
    mean = torch.zeros_like(deltas[0])
    for delta in deltas:
        mean.add_(delta, alpha=1.0 / len(deltas))
    variance = torch.zeros_like(mean)
    for delta in deltas:
        variance.add_((delta - mean).square_())
    # The share is of the positions that vary at all: with one model, none does.
    varying = int(variance.count_nonzero())
    flat, count = variance.view(-1), int(share * varying)
    rule = largest(TaskVectorStatistics(), flat, None, count) if count else NOTHING
    return (dispatch.combine([flat], None, [rule], [1.0]) > 0).view(variance.shape)


def _elected_mean(terms: Sequence[Tensor], weights: Sequence[float], ballots: Sequence[Tensor]) -> Tensor:
    """Sum the terms that agree with the sign of the ballots' sum (0 elects plus), over the sum of their weights."""
    total = ballots[0].clone()
    for ballot in ballots[1:]:
        total.add_(ballot)
    positive = total >= 0
    result, divisor = torch.zeros_like(total), torch.zeros_like(total)
    for term, weight in zip(terms, weights, strict=True):
        agrees = torch.where(positive, term > 0, term < 0)
        result.add_(term * agrees)
        divisor.add_(agrees, alpha=weight)
    return result.div_(divisor.masked_fill_(divisor.abs() < NO_WEIGHT, 1.0))


def _run(inputs: MethodInputs) -> Tensor:
    return sce(inputs.base_tensor, inputs.others, select_topk=inputs.number("select_topk"))


register(
    Method(
        "sce",
        "SCE",
        _run,
        (
            Parameter(
                "select_topk",
                "number",
                "global",
                1.0,
                SearchRange(0.05, 1.0),
                "share of positions merged",
                least=0.0,
                most=1.0,
            ),
            INT8_MASK,
        ),
        "required",
        "https://arxiv.org/abs/2408.07990",
    )
)
