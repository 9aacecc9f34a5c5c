"""How much evidence there is that one candidate is better than another, whenever one looks.

Let `D` be the difference of two candidates' objectives over *all* items, the sum of `a_i (x_i - y_i)` over items with
shares `a_i`. The next item `I` is drawn without replacement with probability `q(I)`, and `f(i)` is what is predicted of
an item's difference, from what was seen before. Then

    Y = S + sum over what remains of f(i) + (a_I (x_I - y_I) - f(I)) / q(I)

with `S` the differences that were seen already, has expectation `D` given all that was seen: what remains adds up to
`D - S`. So under the hypothesis `D <= -tolerance` the capital

    K = product over the draws of (1 + b (Y + tolerance)),      b >= 0 chosen before the draw, 1 + b (Y + tolerance) > 0

of a gambler who bets on the first candidate is a nonnegative supermartingale that begins at 1, and so is the mean of
several gamblers' capitals. By Ville's inequality it exceeds 1/alpha *at any time* with probability at most alpha, and
stopped at any time it is an e-value. This is the betting test of Waudby-Smith & Ramdas (Estimating means of bounded
random variables by betting, JRSS B 2024), for weighted sampling without replacement and with control variates as in
Shekhar, Xu, Lipton, Liang & Ramdas (Risk-limiting financial audits via weighted sampling without replacement, UAI
2023). It needs scores in [0, 1] and nothing else: no distribution, no independence of items, no size of a sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evolve.racing.item_order import Floats, ItemOrder

# Gamblers: each bets as if the difference were this. A mixture needs to know it only roughly.
_DIFFERENCES = np.array([0.03, 0.06, 0.12, 0.24])
_LARGEST_LOSS = 0.95  # of the capital, by one draw


class Evidence:
    """For every ordered pair of candidates, the capital that bets on the first.

    Args:
        order: In which the items are drawn.
        candidates: How many there are.
        tolerance: By how much the second must be better for the hypothesis that is bet against.
    """

    def __init__(self, order: ItemOrder, candidates: int, tolerance: float) -> None:
        self._order = order
        self._tolerance = tolerance
        self._log_capital = np.zeros((len(_DIFFERENCES), candidates, candidates))
        self._estimates = np.zeros((2, candidates))  # sums of weighted estimates, and of their weights

    def observe(self, candidates: NDArray[np.intp], start: int, scores: Floats, predictions: Floats) -> None:
        """Bet on the next draws.

        Args:
            candidates: Which candidates were scored on them, and on all draws before; shape (n,).
            start: The number of draws before.
            scores: In [0, 1], in the order of drawing, from the first draw on, shape (n, end).
            predictions: In [0, 1], of all items in that order, shape (n, items), made from what was seen before.
        """
        order, end = self._order, scores.shape[1]
        draws = slice(start, end)
        left = order.remaining[draws]
        parts = scores * order.shares[:end]
        predicted = predictions * order.shares
        seen = np.cumsum(parts, axis=1)[:, draws] - parts[:, draws]
        foreseen = seen + np.cumsum(predicted[:, ::-1], axis=1)[:, ::-1][:, draws]
        estimates = foreseen + (parts - predicted[:, :end])[:, draws] * left / order.weights[draws]
        # An estimate's variance falls with about the square of what remains; a count, since weights that hung on
        # the draws would bias the mean.
        precision = 1.0 / (len(order) - np.arange(start, end)) ** 2
        self._estimates[0, candidates] += estimates @ precision
        self._estimates[1, candidates] += precision.sum()
        later = slice(start, None)
        variance = left * (order.shares[later] ** 2 * order.deviations[later] ** 2 / order.weights[later]).sum()
        bets = _DIFFERENCES[:, None, None] / variance
        for row, candidate in enumerate(candidates):
            others = np.arange(len(candidates)) != row
            surprise = (order.shares + predicted[row] - predicted[others])[:, later] / order.weights[later]
            worst = (foreseen[row] - foreseen[others]) - left * surprise.max(axis=1, keepdims=True) + self._tolerance
            limits = np.where(worst < 0, _LARGEST_LOSS / np.maximum(-worst, 1e-12), np.inf)
            gains = estimates[row] - estimates[others] + self._tolerance
            capital = np.log1p(np.minimum(bets, limits) * gains).sum(axis=2)
            self._log_capital[:, candidate, candidates[others]] += capital

    def log_e_values(self) -> Floats:
        """Logarithms of the capitals that bet on the row's candidate being better than the column's; square."""
        mixed: Floats = np.logaddexp.reduce(self._log_capital, axis=0) - np.log(len(_DIFFERENCES))
        return mixed

    def estimates(self) -> Floats:
        """Unbiased estimates of the candidates' objectives over all items, from their draws so far; NaN without any."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self._estimates[0] / self._estimates[1])
