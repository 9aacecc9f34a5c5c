"""Optimizers behind one contract: ask for a batch of points of the unit cube, tell what they scored.

Every optimizer is deterministic in its problem and in what it is told, so replaying the journal's batches brings it
back exactly; none needs a state on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Vector = Sequence[float]
Told = float | tuple[float, ...]
"""What a candidate scored: one objective, or several that are kept apart. Larger is better."""


@dataclass(frozen=True)
class Problem:
    """What an optimizer is told before it starts."""

    start: tuple[float, ...]  # where to begin, in the unit cube; its length is the number of genes
    sigmas: tuple[float, ...]  # first standard deviation of every gene, in the unit cube
    choice_counts: tuple[int, ...]  # per gene: 0 for a number, else how many unordered values share the interval
    seed: int
    population_size: int | None = None  # None: the optimizer's own default
    known: tuple[tuple[tuple[float, ...], Told], ...] = ()  # points already scored: (vector, objectives)
    objectives: int = 1  # how many are kept apart
    options: dict[str, Any] = field(default_factory=dict)


class Optimizer(Protocol):
    """Proposes points of the unit cube."""

    def ask(self) -> list[tuple[float, ...]]:
        """The next batch."""
        ...

    def tell(self, vectors: Sequence[Vector], objectives: Sequence[Told | None]) -> None:
        """What the whole batch scored; larger is better, None is a failed candidate."""
        ...


class OptimizerError(ValueError):
    """An optimizer that does not exist, or an option that it does not take."""


def create_optimizer(name: str, problem: Problem) -> Optimizer:
    """The optimizer called `name` in search.yml.

    Raises:
        OptimizerError: `name` is not known, or an option is not one of the optimizer's.
    """
    from evolve.optimizers.cma_es import CmaEs
    from evolve.optimizers.nsga2 import Nsga2
    from evolve.optimizers.tpe import Tpe

    constructors: dict[str, Callable[[Problem], Optimizer]] = {"cma": CmaEs, "tpe": Tpe, "nsga2": Nsga2}
    if name not in constructors:
        raise OptimizerError(f"optimizer.name: expected one of {', '.join(constructors)}, got {name!r}")
    return constructors[name](problem)
