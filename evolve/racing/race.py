"""A race: candidates see more and more items until each one's side of the cut is settled.

The cut is between the `parents` best of a generation and the rest. A candidate is dropped when the hypothesis that it
belongs to the best is refuted. If it does, at most `parents - 1` others are better, so that at least `others - parents
+ 1` of the hypotheses "it is not worse than that other" hold, whose e-values average to an e-value whatever they have
to do with one another (Vovk & Wang, E-values: calibration, combination and applications, Annals of Statistics 2021).
Which ones hold is not known; the mean of the *smallest* that many is no larger than theirs. So a candidate that belongs
to the best is dropped at any look with probability at most `1 - confidence`, without a union over pairs or looks. The
same holds, the other way round, of settling above the cut one that does not belong there.

What all the items could not tell need not be told by some: with a `tolerance`, candidates count as belonging to a
side when they miss it by no more than that.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from evolve.racing.evidence import Evidence
from evolve.racing.item_order import Floats, ItemOrder, expected_deviations
from evolve.racing.predictions import Predictor

ROUNDS = (1 / 8, 1 / 4, 1 / 2, 1)  # share of the items that a candidate has seen by the end of each


class Side(IntEnum):
    """Of the cut."""

    BELOW = -1
    UNDECIDED = 0
    ABOVE = 1


class Race:
    """One generation's race.

    Args:
        shares: Parts of the items in the objective, shape (items,), positive, adding up to 1.
        groups: The task of each item, as an index, shape (items,).
        known: Scores in [0, 1] of models scored before, shape (models, items), at least one; NaN where not scored.
        candidates: How many there are.
        parents: How many of them are above the cut, fewer than all.
        confidence: Of every single settlement, in (0.5, 1).
        tolerance: In units of the objective.
        seed: Of the order of the items.
        thin: Whether items that are expected to say little may be drawn late.

    Attributes:
        order: In which all candidates see the items.
        side: Where each candidate is settled, shape (candidates,).
        seen: How many items each has seen, in that order, shape (candidates,).

    Example:
        >>> race = Race(shares, groups, known, candidates=14, parents=7, confidence=0.95, tolerance=0.0, seed=0)
        >>> while not race.finished:
        ...     race.observe(scores[np.ix_(race.racing, race.next_items)])
        >>> race.side, race.estimates()
    """

    def __init__(
        self,
        shares: Floats,
        groups: NDArray[np.intp],
        known: Floats,
        *,
        candidates: int,
        parents: int,
        confidence: float,
        tolerance: float,
        seed: int | tuple[int, ...],
        thin: bool = True,
    ) -> None:
        self.order = ItemOrder.draw(shares, expected_deviations(known), seed, thin)
        self.side = np.full(candidates, Side.UNDECIDED)
        self.seen = np.zeros(candidates, dtype=np.intp)
        self._parents = parents
        self._threshold = -np.log1p(-confidence)  # of a log e-value: log(1 / (1 - confidence))
        self._predictor = Predictor(known, groups)
        self._evidence = Evidence(self.order, candidates, tolerance)
        self._scores = np.full((candidates, len(shares)), np.nan)  # in the order of drawing
        self._withdrawn = np.zeros(candidates, dtype=bool)
        self._ends = np.unique([max(round(share * len(shares)), 1) for share in ROUNDS])

    @property
    def racing(self) -> NDArray[np.intp]:
        """Which candidates go on, ascending."""
        undecided = (self.side == Side.UNDECIDED) & ~self._withdrawn
        return np.flatnonzero(undecided & (self.seen < len(self.order)))

    @property
    def finished(self) -> bool:
        """Whether nobody goes on."""
        return not len(self.racing)

    @property
    def next_items(self) -> NDArray[np.intp]:
        """The items of the next round."""
        start = self._start
        return self.order.items[start : self._ends[self._ends > start][0]]

    @property
    def _start(self) -> int:
        return int(self.seen[self.racing].max())

    def withdraw(self, candidate: int) -> None:
        """A candidate that cannot be scored leaves; nobody is compared with it any more."""
        self._withdrawn[candidate] = True

    def observe(self, scores: Floats) -> None:
        """Take a round's scores, and settle what they settle.

        Args:
            scores: In [0, 1], of the candidates `racing` on `next_items`, shape (racing, items).

        Raises:
            ValueError: Scores outside of [0, 1], of which nothing can be said.
        """
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError("scores of items must lie in [0, 1]")
        racing, start = self.racing, self._start
        end = start + scores.shape[1]
        self._scores[racing, start:end] = scores
        self.seen[racing] = end
        if end == len(self.order):
            return  # everything is known of them
        items = self.order.items
        before, now = self._scores[racing, :start], self._scores[racing, :end]
        predictions = self._predictor.predict(items[:start], before)[:, items]
        self._evidence.observe(racing, start, now, predictions)
        self._settle(racing)

    def estimates(self) -> Floats:
        """Of each candidate's objective: exact for those that saw all items, else unbiased; NaN for the withdrawn."""
        exact = self._scores @ self.order.shares
        return np.where(self._withdrawn, np.nan, np.where(np.isnan(exact), self._evidence.estimates(), exact))

    def _settle(self, racing: NDArray[np.intp]) -> None:
        evidence = self._evidence.log_e_values()
        entrants = np.flatnonzero(~self._withdrawn)
        rest = len(entrants) - self._parents
        if rest < 1:
            return  # no cut: all that are left are parents
        for candidate in racing:
            others = entrants[entrants != candidate]
            worse = _mean_of_smallest(evidence[others, candidate], rest)
            better = _mean_of_smallest(evidence[candidate, others], self._parents)
            if max(worse, better) >= self._threshold:
                self.side[candidate] = Side.BELOW if worse > better else Side.ABOVE


def resolution(shares: Floats, scores: Floats, confidence: float) -> float:
    """The smallest difference of two models that all the items together could tell from chance.

    The items are a sample too. As one, they would give evidence of 1 / (1 - confidence), what a race asks for, of
    a difference of sqrt(2 log(1 / (1 - confidence))) standard errors: exp(z^2 / 2) is the most that a bet on a normal
    mean wins.

    Args:
        shares: Parts of the items in the objective, shape (items,).
        scores: In [0, 1], of models that are as far apart as those that will race, on all items, shape (models, items);
            at least two.
        confidence: In (0, 1).
    """
    squares = 2 * scores.var(axis=0, ddof=1)  # the mean over pairs of models of (x - y)^2
    return float(np.sqrt(-2 * np.log1p(-confidence) * (shares**2 * squares).sum()))


def _mean_of_smallest(logarithms: Floats, count: int) -> float:
    return float(np.logaddexp.reduce(np.sort(logarithms)[:count]) - np.log(count))
