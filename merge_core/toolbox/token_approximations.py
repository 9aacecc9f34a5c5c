"""Rows for tokens that a model never had, by the names that mergekit-tokensurgeon gives to the ways of making them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from merge_core.toolbox.row_combinations import (
    WeightScheme,
    independent_rows,
    nearest,
    orthogonal_matching_pursuit,
)

SubwordMethod = Literal["mean", "sum", "weighted_mean", "first_last"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How rows are made.

    Attributes:
        count: tokens of a combination: the sparsity, the number of neighbours, the size of the basis.
        cosine: neighbours by angle, not by distance.
        weights: of neighbours, see `nearest`.
        subword: how the rows of a token's parts become one.
        seed: of random rows and of noise.
        noise: standard deviation of normal noise that is added.
        scale: factor of rows, before noise.
    """

    count: int = 64
    cosine: bool = False
    weights: WeightScheme = "distance_proportional"
    subword: SubwordMethod = "mean"
    seed: int = 0
    noise: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class KnownRows:
    """What there is to go by, all in float32 and of one device.

    Attributes:
        donor: the donor's rows of the tokens that both have, [m, donor's size].
        model: the model's rows of the same, [m, size].
        table: the model's rows of all its tokens, [tokens, size].
        is_head: whether they tell the next token, not the last.
        generator: of random numbers.
    """

    donor: Tensor
    model: Tensor
    table: Tensor
    is_head: bool
    generator: torch.Generator

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator).to(self.table.device)


Approximate = Callable[[Tensor, Sequence[Sequence[int]]], Tensor]
"""The donor's rows of tokens [n, donor's size] and the model's tokens for their text → rows [n, size]."""


def _omp(known: KnownRows, settings: Settings) -> Approximate:
    """Sparse combinations of common tokens (https://arxiv.org/abs/2506.06607)."""
    return lambda targets, _: orthogonal_matching_pursuit(targets, known.donor, settings.count).of(known.model)


def _common_interpolation(known: KnownRows, settings: Settings) -> Approximate:
    """Combinations of the nearest common tokens."""
    count, cosine, weights = settings.count, settings.cosine, settings.weights
    return lambda targets, _: nearest(targets, known.donor, count, cosine, weights).of(known.model)


def _stb(known: KnownRows, settings: Settings) -> Approximate:
    """Combinations of one set of common tokens for all, chosen to span the donor's space."""
    chosen = independent_rows(known.donor, settings.count)
    inverse = torch.linalg.pinv(known.donor[chosen].double()).to(known.donor.dtype)
    return lambda targets, _: (targets @ inverse) @ known.model[chosen]


def _landmark_pca(known: KnownRows, _: Settings) -> Approximate:
    """The donor's space turned onto the model's, so that common tokens fall near each other.

    Both centred on them, the turn is the orthogonal one of least squares (Schönemann 1966), which pairs the principal
    axes of what both have in common.
    """
    middle, goal = known.donor.mean(0), known.model.mean(0)
    left, _values, right = torch.linalg.svd((known.donor - middle).T @ (known.model - goal), full_matrices=False)
    return lambda targets, _: (targets - middle) @ left @ right + goal


def _subword(known: KnownRows, settings: Settings) -> Approximate:
    """The rows of the tokens that the model splits the text into (https://arxiv.org/abs/2402.09977)."""

    def row(pieces: Sequence[int]) -> Tensor:
        if not pieces:
            return known.table.mean(0)
        rows = known.table[list(pieces)]
        match settings.subword:
            case "sum":
                return rows.sum(0)
            case "weighted_mean":  # 1, 2, …, n; the first weighs most in the embedding, the last in the head
                weights = torch.arange(1, len(rows) + 1, device=rows.device, dtype=rows.dtype)
                weights = weights if known.is_head else weights.flip(0)
                return weights @ rows / weights.sum()
            case "first_last":  # what is read ends with the last piece, what is predicted begins with the first
                return rows[0 if known.is_head else -1]
        return rows.mean(0)

    return lambda _, pieces: torch.stack([row(tokens) for tokens in pieces])


def _mean(known: KnownRows, _: Settings) -> Approximate:
    """The mean of the model's rows."""
    return lambda targets, _: known.table.mean(0).expand(len(targets), -1)


def _zero(known: KnownRows, _: Settings) -> Approximate:
    """Zeros."""
    return lambda targets, _: known.table.new_zeros(len(targets), known.table.shape[1])


def _randn(known: KnownRows, _: Settings) -> Approximate:
    """Normal numbers, as large as the model's."""
    deviation = known.table.std()
    return lambda targets, _: deviation * known.normal(len(targets), known.table.shape[1])


def _john_hewitt(known: KnownRows, _: Settings) -> Approximate:
    """Draws from the normal distribution of the model's rows, with their mean and covariance.

    Source: Hewitt 2021, https://www.cs.columbia.edu/~johnhew/vocab-expansion.html.
    """
    mean = known.table.mean(0)
    centred = (known.table - mean).double()
    values, axes = torch.linalg.eigh(centred.T @ centred / max(len(centred) - 1, 1))
    root = (values.clamp(min=0).sqrt() * axes).T.to(known.table.dtype)
    return lambda targets, _: mean + known.normal(len(targets), len(mean)) @ root


APPROXIMATIONS: Mapping[str, Callable[[KnownRows, Settings], Approximate]] = {
    "omp": _omp,
    "common_interpolation": _common_interpolation,
    "subword": _subword,
    "mean": _mean,
    "zero": _zero,
    "randn": _randn,
    "john_hewitt": _john_hewitt,
    "landmark_pca": _landmark_pca,
    "stb": _stb,
}
"""Name → what makes ready."""
