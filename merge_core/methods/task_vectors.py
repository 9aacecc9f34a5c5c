"""The family that adds task vectors to a base: task arithmetic, TIES, DARE, Breadcrumbs, DELLA.

A member is three choices: how each task vector is sparsified, whether signs are elected, whether the sum is
divided by the weights. The table in the package's ``__init__`` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from merge_core.sparsify import rescale_to_l1

Sparsifier = Callable[[Tensor, int], Tensor]
"""``sparsifier(task_vector, position)`` → the task vector with the dropped entries at zero."""

NO_WEIGHT = 1e-8
"""A sum of weights smaller than this stands for "nobody", and is not divided by."""


def merge_task_vectors(
    base: Tensor,
    others: Sequence[Tensor],
    weights: Sequence[float],
    *,
    sparsify: Sparsifier | None,
    elect: bool,
    normalize: bool,
    rescale: bool,
    scaling: float,
) -> Tensor:
    """``b + λ · Σ wᵢ δ̂ᵢ`` with ``δ̂ᵢ`` the sparsified ``xᵢ − b``, only agreeing signs summed if ``elect``.

    Task arithmetic: Ilharco et al. 2022, arXiv:2212.04089, section 2. Sign election and disjoint merge: Yadav
    et al. 2023, arXiv:2306.01708, section 4.

    Args:
        base: the base model's tensor.
        others: the other models' tensors, same shape.
        weights: one per other model.
        sparsify: drops entries of a task vector; None keeps all.
        elect: keep, position by position, only the terms whose sign is that of the weighted sum.
        normalize: divide by the weights that took part (where they sum to 0, by 1).
        rescale: bring each sparsified task vector back to its L1 norm.
        scaling: ``λ``.

    Returns:
        float32 tensor of the base's shape.
    """
    if not elect:
        result = torch.zeros_like(base)
        for position, (other, weight) in enumerate(zip(others, weights, strict=True)):
            delta = _sparse_task_vector(base, other, position, sparsify, rescale)
            result.add_(delta, alpha=weight)
        total = sum(weights)
        if normalize and abs(total) >= NO_WEIGHT:
            result.div_(total)
        return result.mul_(scaling).add_(base)

    terms = []
    for position, (other, weight) in enumerate(zip(others, weights, strict=True)):
        terms.append(_sparse_task_vector(base, other, position, sparsify, rescale).mul_(weight))
    return elect_and_sum(terms, weights, normalize).mul_(scaling).add_(base)


def _sparse_task_vector(
    base: Tensor, other: Tensor, position: int, sparsify: Sparsifier | None, rescale: bool
) -> Tensor:
    delta = other - base
    if sparsify is None:
        return delta
    sparse = sparsify(delta, position)
    return rescale_to_l1(sparse, delta) if rescale and sparse is not delta else sparse


def elect_and_sum(
    terms: Sequence[Tensor], weights: Sequence[float], normalize: bool, ballots: Sequence[Tensor] | None = None
) -> Tensor:
    """Sum, position by position, the terms that agree with the sign of the total (a total of 0 elects plus).

    TIES, arXiv:2306.01708, section 4: the elected sign is that of ``Σ terms``; the disjoint mean divides by the
    weights of the agreeing terms.

    Args:
        terms: weighted task vectors, equal shapes.
        weights: the weight in each term.
        normalize: divide by the sum of the agreeing weights, and by 1 where it is 0.
        ballots: what is summed to elect the signs, when it is not the terms.
    """
    votes = terms if ballots is None else ballots
    total = votes[0].clone()
    for vote in votes[1:]:
        total.add_(vote)
    positive = total >= 0
    result = torch.zeros_like(total)
    divisor = torch.zeros_like(total) if normalize else None
    for term, weight in zip(terms, weights, strict=True):
        agrees = torch.where(positive, term > 0, term < 0)
        result.add_(term * agrees)
        if divisor is not None:
            divisor.add_(agrees, alpha=weight)
    if divisor is not None:
        result.div_(divisor.masked_fill_(divisor.abs() < NO_WEIGHT, 1.0))
    return result
