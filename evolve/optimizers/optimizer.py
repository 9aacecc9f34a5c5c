"""What an optimizer is: it is asked for a batch of points of the unit cube, and told what they scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from evolve.space.layer_path import Paths
from evolve.space.space import Vector as Vector  # for whoever writes an optimizer
from evolve.trials.trial import Fitness, Result


@dataclass(frozen=True)
class SearchProblem:
    """What an optimizer is told before it starts."""

    start: tuple[float, ...]  # where to begin, in the unit cube; its length is the number of genes
    sigmas: tuple[float, ...]  # first standard deviation of every gene, in the unit cube
    choice_counts: tuple[int, ...]  # per gene: 0 for a number, else how many unordered values share the interval
    seed: int
    step_counts: tuple[int, ...] = ()  # per gene: 0, or how many ordered values share the interval; (): all 0
    population_size: int | None = None  # None: the optimizer's own default
    known: tuple[tuple[tuple[float, ...], Fitness], ...] = ()  # points already scored: (vector, fitness)
    objectives: int = 1  # more than one in a Pareto search
    constrained: bool = False  # whether a candidate can be infeasible
    evaluations: int | None = None  # candidates that will be scored; None where other bounds end the search
    races: bool = False  # candidates stop once they are settled in the better or the worse half of their batch
    steady_state: bool = False  # candidates are asked for one by one, while others are still being scored
    options: dict[str, Any] = field(default_factory=dict)
    path: Paths | None = None  # where the first genes are a path through layers
    # The genes that count for nothing at a point, such as those of models that are left out; None where all always do.
    # It depends on genes with choices and on those of a path alone.
    inactive: Callable[[Vector], frozenset[int]] | None = None
    canonical: Callable[[Vector], tuple[float, ...]] = tuple  # the point that stands for all of the same candidate

    @property
    def value_counts(self) -> tuple[int, ...]:
        """Per gene: how many values share the interval, ordered or not; 0 for a continuous gene."""
        steps = self.step_counts or (0,) * len(self.start)
        return tuple(choices or count for choices, count in zip(self.choice_counts, steps, strict=True))


class NoOptions(BaseModel):
    """No options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimizer(ABC):
    """Proposes points of the unit cube. What a subclass is stands in its class attributes.

    It must be deterministic in its problem and in what it is told, whatever else draws random numbers meanwhile. It
    begins at the start, or with points drawn around it, and makes use of the `known` points. A batch has the problem's
    `population_size`, where that is given. In `steady_state` it has one point, and the next may be asked for before it
    is told; batches are told in the order of asking. (One that asks for more all the same is told when all are scored.)

    Args:
        problem: what is searched.

    Raises:
        ConfigError: an option that it does not take; the place is one in the search problem.

    Attributes:
        name: in search.yml; of a class that search.yml names as `module:Class`, that.
        aliases: other spellings of it.
        description: one line, for the documentation.
        default_population: how many candidates a batch has by default, for the documentation.
        several_objectives: whether it can search for a Pareto front of several objectives.
        unordered_choices: whether it treats a gene's choices as such; else as intervals of a range.
        exhausts: whether it tries all there is and then ends, so that it is not ended for a plateau.
        selects_half: whether all it takes from a batch is which half is best, and in which order.
        options: what may stand under `optimizer.options`, with defaults.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    description: ClassVar[str] = ""
    default_population: ClassVar[str] = ""
    several_objectives: ClassVar[bool] = False
    unordered_choices: ClassVar[bool] = False
    exhausts: bool = False
    selects_half: ClassVar[bool] = False
    options: ClassVar[type[BaseModel]] = NoOptions

    @abstractmethod
    def __init__(self, problem: SearchProblem) -> None: ...

    @property
    def label(self) -> str:
        """What a person is told of who searches."""
        return self.name

    @abstractmethod
    def ask(self) -> list[tuple[float, ...]]:
        """The next batch; empty when there is nothing left to try."""

    @abstractmethod
    def tell(self, vectors: Sequence[Vector], results: Sequence[Result]) -> None:
        """What the whole batch scored.

        Args:
            vectors: the batch, as it was asked.
            results: larger is better. An infeasible candidate is below every feasible one. `Censored` is one that was
                stopped early and is below those that are worth selecting; None is one that failed.
        """
