"""In which order the candidates of a race see the items: seeded, and those that decide more come sooner.

Items are drawn one after the other, without replacement, each with probability `weight / sum of the weights that
remain` (successive sampling; Rosén 1972). A weight is the item's part in the objective times how much its score is
expected to differ among candidates (Neyman 1934), so that an item on which all parents agree, a dead one, is drawn
thinly. Nothing is biased by that: estimates and tests divide by the probabilities (Horvitz & Thompson 1952).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST_DEVIATION = 0.2  # of scores in [0, 1]: what is presumed dead may live, and is drawn sometimes
_WORTH_IT = 0.95  # weights that leave more of the variance than this do not pay for what they risk


@dataclass(frozen=True)
class ItemOrder:
    """The items of a race in the order in which they are drawn; every array has shape (items,).

    Attributes:
        items: indices of the items.
        shares: their parts in the objective, which add up to 1.
        weights: what they were drawn by.
        remaining: sum of the weights of what is left before each draw, its own included.
        deviations: expected standard deviations of their scores among candidates.
    """

    items: NDArray[np.intp]
    shares: Floats
    weights: Floats
    remaining: Floats
    deviations: Floats

    @classmethod
    def draw(cls, shares: Floats, deviations: Floats, seed: int | tuple[int, ...], thin: bool = True) -> ItemOrder:
        """Draw an order.

        Args:
            shares: Parts of the items in the objective, shape (items,), positive, adding up to 1.
            deviations: Expected standard deviations among candidates, shape (items,), of scores in [0, 1].
            seed: Of the draw.
            thin: Whether dead items may be drawn thinly; else every item is drawn by its share.
        """
        floored = np.maximum(deviations, _LEAST_DEVIATION)
        weights = shares * floored if thin and remaining_variance(shares, floored) < _WORTH_IT else shares
        # The order of exponential arrival times with these rates is the order of successive draws.
        items = np.argsort(np.random.default_rng(seed).exponential(size=len(shares)) / weights)
        drawn = weights[items]
        return cls(items, shares[items], drawn, np.cumsum(drawn[::-1])[::-1], floored[items])

    def __len__(self) -> int:
        return len(self.items)


def remaining_variance(shares: Floats, deviations: Floats) -> float:
    """How much of the variance of an estimate is left when items are drawn by share times deviation, in (0, 1].

    That is (sum a s)^2 / sum a s^2 for shares `a` and deviations `s`, the first order of the two variances' ratio; 1
    where all items deviate alike, and thin sampling gains nothing.
    """
    return float((shares @ deviations) ** 2 / (shares @ deviations**2))


def expected_deviations(known: Floats) -> Floats:
    """How much each item's score is expected to differ among candidates.

    Args:
        known: Scores in [0, 1] of models that were scored, shape (models, items); NaN where one was not.

    Returns:
        Shape (items,). Two further models that differ as far as they can keep it above 0.
    """
    seen = np.isfinite(known)
    count = seen.sum(axis=0)
    values = np.where(seen, known, 0.0)
    mean = values.sum(axis=0) / np.maximum(count, 1)
    squares = np.where(seen, (known - mean) ** 2, 0.0).sum(axis=0)
    deviations: Floats = np.sqrt((squares + 0.5) / (count + 2))
    return deviations
