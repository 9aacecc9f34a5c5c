"""The places of a recipe where parameters stand that were searched, and the numbers that tensors have from there."""

from __future__ import annotations

from dataclasses import dataclass

from evolve.problems import Place
from merge_core import ParameterSlot
from merge_core.plan.tensor_job import TensorJob


@dataclass(frozen=True)
class Cell:
    """One number of the long recipe: a parameter at one tensor of the result, of one model or for all.

    Attributes:
        output: the tensor.
        slot: the parameter there.
        tensor: the name in which filters are looked for: the tensor's in the model, or of what is for all the result's.
        value: the number.
        moved: how much it moves the model: squared length of the task vector there; without a base, of the tensor.
        depth: where a gradient over the layers is read there: 0 at the first, 1 at the last.
    """

    output: str
    slot: ParameterSlot
    tensor: str
    value: float
    moved: float = 1.0
    depth: float = 0.0


@dataclass(frozen=True)
class Site:
    """A place of the recipe where a parameter is set, with the numbers that it has there.

    Attributes:
        place: in the recipe.
        low, high: its range.
        cells: its numbers.
        default: what holds for all of them where the recipe does not say it; None where it has to.
        model: of a weight, the place of its model, if a recipe that lacks the model means the same as a weight of 0.
        fewest: how many of the models beside that one have to stay, itself included.
    """

    place: Place
    low: float
    high: float
    cells: tuple[Cell, ...]
    default: float | None = None
    model: Place | None = None
    fewest: int = 1

    def clip(self, value: float) -> float:
        """The number of the range that is nearest."""
        return min(max(value, self.low), self.high)


def numbers_of(job: TensorJob) -> dict[ParameterSlot, float]:
    """The parameters of a tensor that are numbers."""
    own = [
        (ParameterSlot(name, position), value)
        for position, source in enumerate(job.inputs)
        for name, value in source.parameters
    ]
    shared = [(ParameterSlot(name), value) for name, value in job.settings]
    return {
        slot: float(value)
        for slot, value in [*own, *shared]
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
