"""An optimizer of the user's own, whose mistakes are told instead of raised through the search."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.scoring.foreign_code import EscapeError, without_escape
from evolve.trials.trial import Result

Given = TypeVar("Given")


class OptimizerFailedError(RuntimeError):
    """An optimizer of the user's own raised, or asked for what are no points of the search."""


class OwnOptimizer(Optimizer):
    """Passes on what the search asks and tells, and looks at what comes back.

    Args:
        optimizer: the user's class, whose name stands in messages.
        problem: what is searched.

    Raises:
        OptimizerFailedError: it cannot be made.
    """

    def __init__(self, optimizer: type[Optimizer], problem: SearchProblem) -> None:
        self._name, self._genes = optimizer.name, len(problem.start)
        self._optimizer = self._try("cannot be made", lambda: optimizer(problem))

    @property
    def label(self) -> str:
        """The user's class."""
        return self._name

    def ask(self) -> list[tuple[float, ...]]:
        """The next batch.

        Raises:
            OptimizerFailedError: it raised, or this is no batch of points of the unit cube.
        """
        asked: Any = self._try("ask failed", self._optimizer.ask)
        points = self._try("ask gave no list of points", lambda: [tuple(map(float, point)) for point in asked])
        if not points:
            raise OptimizerFailedError(f"{self._name}: ask gave no point. Return a list of at least one")
        for point in points:
            if len(point) != self._genes or not all(0.0 <= unit <= 1.0 for unit in point):
                raise OptimizerFailedError(
                    f"{self._name}: ask gave {point}, expected {self._genes} numbers from 0 to 1, one for each gene"
                )
        return points

    def tell(self, vectors: Sequence[Vector], results: Sequence[Result]) -> None:
        """What the whole batch scored.

        Raises:
            OptimizerFailedError: it raised.
        """
        self._try("tell failed", lambda: self._optimizer.tell(vectors, results))

    def _try(self, what: str, work: Callable[[], Given]) -> Given:
        try:
            with without_escape():
                return work()
        except EscapeError as error:  # says where
            raise OptimizerFailedError(f"{self._name}: {what}: {error}") from error
        except Exception as error:  # the user's code can raise anything
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            raise OptimizerFailedError(f"{self._name}: {what}: {type(error).__name__}: {error} ({where})") from error
