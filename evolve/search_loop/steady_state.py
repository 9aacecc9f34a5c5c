"""Asking an optimizer for one candidate at a time, deterministically, with results that come late."""

from __future__ import annotations

from collections import deque

from evolve.optimizers import Optimizer
from evolve.trials.trial import Result


def lag_of(workers: int) -> int:
    """How many candidates the optimizer is behind: 1 for one worker, which has every result before it asks.

    With more, a free worker waits only where the oldest candidate takes as long as two of each other worker's.
    """
    return 2 * workers - 1


class SteadyState:
    """Asks an optimizer for one candidate at a time and tells results in the order of asking.

    Candidate `n` is asked for when exactly the results of those up to `n - lag` are told, whichever are finished by
    then. So what is asked depends on the lag, and never on which worker is faster. An optimizer that asks for several
    at a time is asked again when all are handed out, and told when all of a batch have results.

    Args:
        optimizer: of a problem in steady state.
        lag: at least 1.
    """

    def __init__(self, optimizer: Optimizer, lag: int) -> None:
        self._optimizer, self._lag = optimizer, lag
        self._waiting: deque[tuple[float, ...]] = deque()  # proposed, and not handed out
        self._batches: deque[list[tuple[float, ...]]] = deque()  # proposed, and not told
        self._results: list[Result] = []  # of the first of these batches
        self._asked = 0
        self._told = 0

    @property
    def due(self) -> int | None:
        """The candidate whose result must be told before the next can be asked for; None when there is none."""
        return self._told if self._told <= self._asked - self._lag else None

    @property
    def told(self) -> int:
        """How many candidates' results are told."""
        return self._told

    def ask(self) -> tuple[float, ...] | None:
        """The next candidate; None when the optimizer has nothing left to propose."""
        if not self._waiting:
            batch = self._optimizer.ask()
            if not batch:
                return None
            self._batches.append(batch)
            self._waiting.extend(batch)
        self._asked += 1
        return self._waiting.popleft()

    def tell(self, result: Result) -> None:
        """The result of the candidate that is due."""
        self._told += 1
        self._results.append(result)
        if len(self._results) == len(self._batches[0]):
            self._optimizer.tell(self._batches.popleft(), self._results)
            self._results = []
