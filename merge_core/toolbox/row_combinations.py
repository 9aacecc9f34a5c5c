"""Vectors as combinations of others: which of them, and with what weights.

Carried over to another space, the weights say there what the vectors are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

WeightScheme = Literal["distance_proportional", "barycentric", "least_squares"]

_TINY = 1e-5
"""Part of a vector's length that is no more than rounding in float32."""


@dataclass(frozen=True, slots=True)
class Combinations:
    """A combination of rows for each of ``n`` vectors.

    Attributes:
        rows: which, [n, k], int64.
        weights: [n, k], float32.
    """

    rows: Tensor
    weights: Tensor

    def of(self, table: Tensor) -> Tensor:
        """The combinations of a table's rows: [n, size]."""
        return torch.einsum("nk,nks->ns", self.weights, table[self.rows])


def orthogonal_matching_pursuit(targets: Tensor, atoms: Tensor, count: int) -> Combinations:
    """Sparse combinations of atoms by greedy choice, all weights fitted anew after every choice.

    The atom with the largest inner product with what is left is chosen, as it stands (not at length 1). Choices are
    kept orthogonal by Gram-Schmidt, so that the weights follow from one triangular system. A target that is reached, or
    whose next atom depends on the earlier ones, gets no further atoms.

    Source: Pati, Rezaiifar and Krishnaprasad 1993 (orthogonal matching pursuit); for tokens
    https://arxiv.org/abs/2506.06607.

    Args:
        targets: [n, size], float32.
        atoms: [m, size], float32.
        count: the most atoms of a combination.
    """
    n, size = targets.shape
    count = min(count, len(atoms), size)
    left, length = targets.clone(), targets.norm(dim=1)
    basis, triangle = targets.new_zeros(n, count, size), torch.eye(count, device=targets.device).repeat(n, 1, 1)
    shares, chosen = targets.new_zeros(n, count), torch.zeros(n, count, dtype=torch.int64, device=targets.device)
    for step in range(count):
        products = (left @ atoms.T).abs_().scatter_(1, chosen[:, :step], -1.0)
        chosen[:, step] = products.argmax(1)
        atom = atoms[chosen[:, step]]
        direction, earlier = atom, basis[:, :step]
        for _ in range(2):  # the second time takes away what rounding left
            along = torch.einsum("nks,ns->nk", earlier, direction)
            direction = direction - torch.einsum("nk,nks->ns", along, earlier)
            triangle[:, :step, step] += along
        norm = direction.norm(dim=1)
        goes_on = (norm > _TINY * atom.norm(dim=1)) & (left.norm(dim=1) > _TINY * length)
        basis[:, step] = torch.where(goes_on, 1 / norm, 0.0).unsqueeze(1) * direction
        triangle[:, step, step] = torch.where(goes_on, norm, 1.0)
        shares[:, step] = (basis[:, step] * left).sum(1)
        left = left - shares[:, step].unsqueeze(1) * basis[:, step]
    weights = torch.linalg.solve_triangular(triangle, shares.unsqueeze(2), upper=True).squeeze(2)
    return Combinations(chosen, weights)


def nearest(targets: Tensor, rows: Tensor, count: int, cosine: bool, scheme: WeightScheme) -> Combinations:
    """Combinations of the nearest rows.

    Args:
        targets: [n, size], float32.
        rows: [m, size], float32.
        count: how many are combined.
        cosine: nearest by angle, not by distance.
        scheme: ``distance_proportional``: inverse to the distance (with ``cosine``: as the cosine), with sum 1;
            ``least_squares``: what comes nearest; ``barycentric``: the same with sum 1 (locally linear embedding,
            Roweis and Saul 2000).
    """
    count = min(count, len(rows))
    if cosine:
        found = (normalize(targets, dim=1) @ normalize(rows, dim=1).T).topk(count)
        nearness = found.values.clamp(min=_TINY)
    else:
        found = torch.cdist(targets, rows).topk(count, largest=False)
        nearness = 1 / found.values.clamp(min=torch.finfo(torch.float32).tiny ** 0.5)
    if scheme == "distance_proportional":
        return Combinations(found.indices, nearness / nearness.sum(1, keepdim=True))
    # Exact, as products of rows square the condition number.
    neighbours, wanted = rows[found.indices].double(), targets.double()
    if scheme == "least_squares":
        weights = _least_squares(neighbours, wanted)
    else:
        mean = neighbours.mean(1)
        # Of all solutions the shortest, whose sum is 0, as the deviations from the mean have that sum.
        weights = 1 / count + _least_squares(neighbours - mean.unsqueeze(1), wanted - mean)
    return Combinations(found.indices, weights.to(targets.dtype))


def _least_squares(rows: Tensor, targets: Tensor) -> Tensor:
    """The shortest weights of those that come nearest: [n, k] for rows [n, k, size] in float64."""
    products = rows @ rows.transpose(1, 2)
    inverse: Tensor = torch.linalg.pinv(products, rtol=_TINY**2, hermitian=True)
    return (inverse @ (rows @ targets.unsqueeze(2))).squeeze(2)


def independent_rows(rows: Tensor, count: int) -> Tensor:
    """Rows that span as much as possible: each the longest of what earlier ones leave of all (QR with pivoting).

    Source: Businger and Golub 1965, "Linear least squares solutions by Householder transformations".

    Args:
        rows: [m, size], float32.
        count: at most how many.

    Returns:
        Which, int64.
    """
    left, chosen = rows.clone(), list[int]()
    smallest = _TINY * float(rows.norm(dim=1).max())
    for _ in range(min(count, *rows.shape)):
        lengths = left.norm(dim=1)
        best = int(lengths.argmax())
        if lengths[best] <= smallest:
            break
        chosen.append(best)
        direction = left[best] / lengths[best]
        left -= torch.outer(left @ direction, direction)
    return torch.tensor(chosen, device=rows.device)
