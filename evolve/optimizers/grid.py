"""Every combination of a few values of each gene, in an order that a budget may cut anywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from evolve import bounds
from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.optimizers.registry import register
from evolve.problems import ConfigError, Problem
from evolve.trials.trial import Result

DEFAULT_BATCH = 8


class GridOptions(BaseModel):
    """How fine the grid is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: int = Field(
        default=3,
        ge=2,
        description="Values per continuous gene, evenly spaced over its range. Genes with a `step` and choices use all "
        "their values.",
    )


@register
class Grid(Optimizer):
    """All points of a grid, in an order shuffled by the seed, so that what a budget leaves is spread evenly.

    The start is not among them unless it lies on the grid. The search ends when all are scored.

    Args:
        problem: what is searched.

    Raises:
        ConfigError: the grid has more than `bounds.COMBINATIONS` points.

    Example:
        >>> optimizer = Grid(SearchProblem(start=(0.5,), sigmas=(0.2,), choice_counts=(0,), seed=1))
        >>> sorted(optimizer.ask())
        [(0.0,), (0.5,), (1.0,)]
    """

    name = "grid"
    description = "all combinations of a few values per gene, shuffled; the search ends after the last"
    default_population = str(DEFAULT_BATCH)
    several_objectives = True
    unordered_choices = True
    exhausts = True
    options = GridOptions

    def __init__(self, problem: SearchProblem) -> None:
        points = GridOptions.model_validate(problem.options).points
        self._values = [
            [(index + 0.5) / count for index in range(count)] if count else [i / (points - 1) for i in range(points)]
            for count in problem.value_counts
        ]
        size = math.prod(map(len, self._values))
        if size > bounds.COMBINATIONS:
            sizes = " x ".join(str(len(values)) for values in self._values[:8])
            more = " x ..." if len(self._values) > 8 else ""
            message = (
                f"the grid of {len(self._values)} genes has {sizes}{more} = {size:.3g} points, expected at most "
                f"{bounds.COMBINATIONS:,}. Use fewer genes, lower points, or qmc, which fills ranges of any number"
            )
            raise ConfigError(Problem(("options",), message))
        self._canonical = problem.canonical
        self._order = random.Random(problem.seed).sample(range(size), size)
        self._batch = 1 if problem.steady_state else problem.population_size or DEFAULT_BATCH
        self._asked = 0
        self._done: set[tuple[float, ...]] = set()

    def ask(self) -> list[tuple[float, ...]]:
        """The next batch; the last is smaller, and after it there is none."""
        batch: list[tuple[float, ...]] = []
        while len(batch) < self._batch and self._asked < len(self._order):
            point = self._point(self._order[self._asked])
            self._asked += 1
            canonical = tuple(self._canonical(point))
            if canonical not in self._done:  # several points may stand for the same candidate
                self._done.add(canonical)
                batch.append(canonical)
        return batch

    def tell(self, vectors: Sequence[Vector], results: Sequence[Result]) -> None:
        """Nothing is learnt from it."""

    def _point(self, number: int) -> tuple[float, ...]:
        """The number in the mixed radix of the genes' values."""
        units = []
        for values in self._values:
            number, digit = divmod(number, len(values))
            units.append(values[digit])
        return tuple(units)
