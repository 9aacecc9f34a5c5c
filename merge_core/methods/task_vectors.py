"""The family that adds task vectors to a base: task arithmetic, TIES, DARE, Breadcrumbs, DELLA.

A member is three choices: how each task vector is sparsified, whether signs are elected, whether the sum is
divided by the weights. The table in the package's ``__init__`` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from merge_core import kernels
from merge_core.eager_kernels import NO_WEIGHT
from merge_core.keep import Keep
from merge_core.sparsify import TaskVector

Sparsifier = Callable[[TaskVector, int], Keep]
"""``sparsifier(task_vector, position)`` → which entries of it stay."""


def merge_task_vectors(
    base: Tensor,
    vectors: Sequence[TaskVector],
    weights: Sequence[float],
    *,
    sparsify: Sparsifier,
    elect: bool,
    normalize: bool,
    rescale: bool,
    scaling: float,
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """``b + λ · Σ wᵢ δ̂ᵢ`` with ``δ̂ᵢ`` the sparsified ``xᵢ − b``, only agreeing signs summed if ``elect``.

    Task arithmetic: Ilharco et al. 2022, arXiv:2212.04089, section 2. Sign election and disjoint merge: Yadav
    et al. 2023, arXiv:2306.01708, section 4: the elected sign is that of ``Σ wᵢ δ̂ᵢ``, plus when it is 0; the
    disjoint mean divides by the weights of the agreeing terms.

    Args:
        base: the base model's tensor.
        vectors: the other models' task vectors.
        weights: one per task vector.
        sparsify: drops entries of a task vector.
        elect: keep, position by position, only the terms whose sign is that of the weighted sum.
        normalize: divide by the weights that took part (where they sum to 0, by 1).
        rescale: bring each sparsified task vector back to its L1 norm.
        scaling: ``λ``.
        dtype, out: of the result, see `kernels.combine`.

    Returns:
        Tensor of the base's shape.

    Raises:
        NotFiniteError: NaN or infinity in the result.
    """
    sources, rules, factors, shares = [], [], [], []
    for position, (vector, weight) in enumerate(zip(vectors, weights, strict=True)):
        if weight == 0.0:
            continue
        rule = sparsify(vector, position)
        sources.append(vector.source)
        rules.append(rule)
        factors.append(weight * _l1_ratio(vector, rule) if rescale and rule is not None else weight)
        shares.append(weight)
    if not elect:
        total = sum(weights)
        common = scaling / total if normalize and abs(total) >= NO_WEIGHT else scaling
        factors = [factor * common for factor in factors]
    return kernels.combine(
        sources,
        base.reshape(-1),
        rules,
        factors,
        weights=shares if elect and normalize else (),
        elect=elect,
        scaling=scaling,
        dtype=dtype,
        out=out,
    ).view(base.shape)


def _l1_ratio(vector: TaskVector, rule: Keep) -> float:
    sparse = kernels.magnitude_sum(vector.source, vector.base, rule)
    return vector.statistics.magnitude_sum(vector.source, vector.base) / sparse if sparse else 1.0
