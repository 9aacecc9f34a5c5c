"""What the models changed of their base: how much of it, and where two of them pull in opposite directions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from evolve.inspection.differences import Matrix
from evolve.inspection.row_sample import RowSample

LARGEST = 0.2  # of a tensor's changes: those that decide what a model learnt, as in TIES (Yadav et al., 2023)


@dataclass
class TaskVectors:
    """Differences from the base, added up tensor by tensor.

    Attributes:
        base: number of the model.
        count: of models.
        changed: of each model, the elements that differ from the base's, of `elements`.
    """

    base: int
    count: int
    elements: int = 0
    changed: Matrix = field(init=False)

    def __post_init__(self) -> None:
        self.changed = np.zeros(self.count)
        self._both_large = np.zeros((self.count, self.count))
        self._opposed = np.zeros((self.count, self.count))

    def add(self, sample: RowSample) -> None:
        """Count a tensor in."""
        flat = (sample.values - sample.values[self.base]).flatten(1)
        self.elements += flat.shape[1]
        self.changed += (flat != 0).sum(1).double().numpy()
        large = self._largest(flat)
        signs = torch.where(large, flat.sign(), torch.zeros(()))
        both = large.float() @ large.float().T
        self._both_large += both.double().numpy()
        self._opposed += ((both - signs @ signs.T) / 2).double().numpy()

    def conflicts(self) -> Matrix:
        """Of two models' largest changes that are in the same places, the share with opposite signs; chance is 1/2."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._opposed / self._both_large)

    @staticmethod
    def _largest(flat: torch.Tensor) -> torch.Tensor:
        kept = max(1, round(LARGEST * flat.shape[1]))
        bound = flat.abs().kthvalue(flat.shape[1] - kept + 1, dim=1, keepdim=True).values
        return (flat.abs() >= bound) & (flat != 0)
