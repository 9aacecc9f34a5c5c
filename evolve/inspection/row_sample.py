"""A sample of rows of a tensor, the same rows of every model: what is read instead of whole models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evolve.inspection.family import SharedTensor
from merge_core import Checkpoint

ROWS = 64  # of a matrix
_BLOCK = 4  # rows that lie together are read together
_LONGEST_ROW = 65_536  # elements


@dataclass(frozen=True)
class RowSample:
    """Rows of one tensor.

    Attributes:
        values: models x rows x columns, float32.
        scale: by which a sum over them estimates the sum over the whole tensor.
        bytes_read: of all models.
    """

    values: torch.Tensor
    scale: float
    bytes_read: int


def sample_rows(checkpoints: Sequence[Checkpoint], tensor: SharedTensor, seed: int = 0) -> RowSample:
    """Read at most `ROWS` rows, in blocks at random places; vectors are one row.

    Args:
        checkpoints: the models, as in the tensor's `names`.
        tensor: which.
        seed: of the places.
    """
    found = [checkpoint.read_in_parts(name) for checkpoint, name in zip(checkpoints, tensor.names, strict=True)]
    matrices = [one.reshape(-1, one.shape[-1]) if one.dim() > 1 else one.reshape(1, -1) for one in found]
    count, columns = matrices[0].shape
    rows = _places(count, random.Random(f"{seed} {tensor.layer} {tensor.kind}"))
    width = min(columns, _LONGEST_ROW)
    values = torch.stack([matrix[rows, :width].float() for matrix in matrices])
    size = sum(one.element_size() for one in found) * len(rows) * width
    return RowSample(values, count * columns / max(1, len(rows) * width), size)


def _places(count: int, generator: random.Random) -> list[int]:
    if count <= ROWS:
        return list(range(count))
    blocks = sorted(generator.sample(range(count // _BLOCK), ROWS // _BLOCK))
    return [block * _BLOCK + row for block in blocks for row in range(_BLOCK)]
