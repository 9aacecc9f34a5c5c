"""A step of the gradient start, as the journal keeps it: enough to go the way again without a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from evolve.trials.clean_text import clean_line

FORWARD_AND_BACKWARD = 3
"""Item evaluations that an item of a step counts as: a backward pass takes as long as two forward passes."""


@dataclass(frozen=True)
class Step:
    """What was found at a point of the way.

    Attributes:
        number: in the order of asking, over all ways.
        gradient: of the loss by the units of all genes, shape (genes,).
        probabilities: task name -> the mean probability of a right answer over the step's items.
        items: how many items it was made on.
        failure: why there is no gradient.
        seconds: merging, forward and backward.
        way: where it began; empty in journals of earlier versions.
    """

    number: int
    gradient: tuple[float, ...] = ()
    probabilities: dict[str, float] = field(default_factory=dict)
    items: int = 0
    failure: str | None = None
    seconds: float = 0.0
    way: str = ""

    def __post_init__(self) -> None:
        if self.failure is not None:
            object.__setattr__(self, "failure", clean_line(self.failure))
