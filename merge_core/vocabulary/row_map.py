"""Rows of an embedding (or of a head) put in the order of the output vocabulary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows taken from one tensor of one model.

    Attributes:
        model: its reference; tensor: the tensor's name in it.
        to: where they go, int64.
        rows: which they are, int64, as many.
    """

    model: str
    tensor: str
    to: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RowMap:
    """How one input is made of rows. Two maps are equal when they make equal tensors of equal inputs.

    Attributes:
        own: per output row the input's own row, 0 where another rule fills it. int64, (rows before padding,).
        borrowed: rows of other models, or of other tokens, written over ``own``.
        averaged: output rows that are the mean of the rows of several models, each position once per model.
        zeros: output rows that are zero. int64.
        padding: rows to add, each the mean of all others.
    """

    own: Tensor
    borrowed: tuple[Rows, ...]
    averaged: tuple[Rows, ...]
    zeros: Tensor
    padding: int
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.own.numpy().tobytes())
        for label, group in (("borrowed", self.borrowed), ("averaged", self.averaged)):
            for part in group:
                digest.update(f"{label}\0{part.model}\0{part.tensor}\0{len(part.to)}\0".encode())
                digest.update(part.to.numpy().tobytes() + part.rows.numpy().tobytes())
        digest.update(f"zeros\0{self.padding}\0".encode() + self.zeros.numpy().tobytes())
        object.__setattr__(self, "digest", digest.digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowMap) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def count(self) -> int:
        """Number of output rows, padding included."""
        return len(self.own) + self.padding

    def align(self, own: Tensor, read: Callable[[str, str], Tensor]) -> Tensor:
        """Make the tensor.

        Args:
            own: the input as stored, (its vocabulary, ...).
            read: gives a tensor by model reference and name.

        Returns:
            (count, ...). In the input's dtype when rows are only moved, in float32 when any are averaged.
        """
        others = [read(part.model, part.tensor) for part in self.borrowed]
        exact = not self.averaged and not self.padding and all(other.dtype == own.dtype for other in others)
        dtype = own.dtype if exact else torch.float32
        rows = len(self.own)
        result = torch.empty((self.count, *own.shape[1:]), dtype=dtype)
        if exact:
            torch.index_select(own, 0, self.own, out=result)
        else:
            result[:rows] = own.index_select(0, self.own)
        for part, other in zip(self.borrowed, others, strict=True):
            result[part.to] = other.index_select(0, part.rows).to(dtype)
        if self.averaged:
            self._average(result, read)
        result[self.zeros] = 0
        if self.padding:
            result[rows:] = result[:rows].mean(dim=0)
        return result

    def _average(self, result: Tensor, read: Callable[[str, str], Tensor]) -> None:
        where, places = torch.unique(torch.cat([part.to for part in self.averaged]), return_inverse=True)
        counts = torch.bincount(places).to(torch.float32)
        total = torch.zeros((len(where), *result.shape[1:]))
        start = 0
        for part in self.averaged:
            end = start + len(part.to)
            # Positions are distinct within a part, so this order of additions is the same everywhere.
            total[places[start:end]] += read(part.model, part.tensor).index_select(0, part.rows).float()
            start = end
        result[where] = total / counts.view(-1, *[1] * (total.dim() - 1))
