"""Where a merge leaves its result, and how it is known that the result is sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Label = TypeVar("Label")


@dataclass(frozen=True, slots=True)
class Output:
    """Of `dispatch.combine`.

    Attributes:
        dtype: the result is rounded to it once.
        memory: where to write it, if it can be: contiguous, of ``dtype``, or float32 holding rounded values.
        largest: gives the address of an int32 on the result's device that may be raised to the bits of the largest
            magnitude, for the caller to look at; None has the result looked at at once.
    """

    dtype: torch.dtype = torch.float32
    memory: Tensor | None = None
    largest: Callable[[], int] | None = None


FLOAT32 = Output()


class LargestMagnitudes(Generic[Label]):
    """The largest magnitude of each of many results on an accelerator, asked for together.

    A look at one result waits for the device, in the time of which the next merges could be prepared.

    Args:
        capacity: of how many results at most.
        device: theirs.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._bits = torch.full((capacity,), -1, dtype=torch.int32, device=device)
        self._labels: list[Label] = []

    def place(self, label: Label) -> int:
        """The address of the number of one more result."""
        self._labels.append(label)
        return self._bits.data_ptr() + (len(self._labels) - 1) * self._bits.element_size()

    @property
    def count(self) -> int:
        """How many results there are."""
        return len(self._labels)

    def read(self) -> list[tuple[Label, int]]:
        """Labels and bits of float32, in order; -1 of a result without entries. Waits for the device."""
        return list(zip(self._labels, self._bits[: self.count].tolist(), strict=True))
