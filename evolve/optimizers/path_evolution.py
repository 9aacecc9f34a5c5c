"""Evolution of paths through the layers of models: blocks are moved, repeated, skipped and taken from other models.

Akiba et al., Evolutionary Optimization of Model Merging Recipes, 2403.13187, search the layers' order with CMA-ES over
indicators of a fixed order; a path that is right but for one layer is then far from the right one. Here it is one
change away. Which changes are made follows which have helped: probability matching, Thierens, GECCO 2005.
"""

from __future__ import annotations

import random
from bisect import insort
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from evolve.optimizers.optimizer import Optimizer, SearchProblem, Vector
from evolve.optimizers.path_changes import PathChanges
from evolve.optimizers.ranking import components, feasible, ordered
from evolve.optimizers.registry import register
from evolve.problems import ConfigError
from evolve.space.layer_path import Path, Step
from evolve.trials.trial import Result

DEFAULT_BATCH = 8
ATTEMPTS = 2000  # at a path that is new, before the search is over
KEPT = 0.4  # of the changes keep the path and move genes beside it, where there are such
MOVED = 0.3  # of these genes, each by itself; and of the changes of a path move some of them, too
DIGITS = 2  # of these genes' units
CONSIDERED = 50  # of the best paths


class Known(NamedTuple):
    """A path that was scored."""

    fitness: float
    path: Path
    vector: Vector


class PathOptions(BaseModel):
    """How greedy it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    greed: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="Probability that the best path is mutated; each next one's is smaller by a factor of 1 - greed.",
    )
    niches: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="Probability that instead the best path with some number of joints is mutated, few joints first, "
        "so that simple paths are not abandoned for better ones that lead nowhere.",
    )
    patience: float = Field(
        default=40.0,
        gt=0,
        description="Mutations of a path, repeated ones included, after which it falls one rank.",
    )


@register
class PathEvolution(Optimizer):
    """Changes the best paths found, one change at a time, and never tries a path twice.

    Args:
        problem: what is searched; it has a `path`.

    Raises:
        ConfigError: it has none.
    """

    name = "path"
    description = (
        "evolution of layer paths: blocks are moved, repeated, skipped or taken from other models (`layers: {path: …}`)"
    )
    default_population = str(DEFAULT_BATCH)
    selects_half = True  # those of the worse half are no path's origin
    options = PathOptions

    def __init__(self, problem: SearchProblem) -> None:
        if problem.path is None:
            raise ConfigError("path searches layer paths, and the recipe has none. Use layers: {path: any}, or cma")
        self._space = problem.path
        self._canonical = problem.canonical
        self._options = PathOptions.model_validate(problem.options)
        self._batch = 1 if problem.steady_state else problem.population_size or DEFAULT_BATCH
        self._random = random.Random(problem.seed)
        self._changes = PathChanges(problem.path.layer_counts, self._random, self._mate)
        self._sigmas = problem.sigmas[problem.path.place_count :]  # of the genes beside the path
        self._ranked: list[Known] = []  # best first
        self._elites: dict[int, Known] = {}  # the best of all paths with as many joints
        self._seen: dict[Path, set[tuple[float, ...]]] = {}  # with the other genes, as finely as they are moved
        self._tried: Counter[str] = Counter()
        self._helped: Counter[str] = Counter()
        self._changes_of: Counter[Path] = Counter()  # how often each was changed
        self._asked: deque[list[tuple[str, float]]] = deque()  # which change, and what the changed path had scored
        for vector, fitness in problem.known:
            self._place(components(fitness)[0], tuple(vector))
        self._first = [tuple(problem.start)] if self._remember(problem.start, again=True) else []

    def ask(self) -> list[tuple[float, ...]]:
        """The next batch: the start first, then changes of the best; empty when no new path is found any more."""
        vectors: list[tuple[float, ...]] = []
        how: list[tuple[str, float]] = []
        while len(vectors) < self._batch:
            if self._first:
                vector, origin = self._first.pop(), ("", 0.0)
            else:
                found = self._changed()
                if found is None:
                    break
                vector, origin = found
            vectors.append(vector)
            how.append(origin)
        self._asked.append(how)
        return vectors

    def tell(self, vectors: Sequence[Vector], results: Sequence[Result]) -> None:
        """Place the batch among the paths known, and remember which changes helped."""
        known = [self._ranked[-1].fitness] if self._ranked else []
        lowest = min([*known, *(components(one)[0] for one in feasible(results))], default=0.0)
        numbers = ordered(results, (lowest,))
        for vector, values, (change, before) in zip(vectors, numbers, self._asked.popleft(), strict=True):
            self._tried[change] += 1
            if values is not None:
                self._helped[change] += values[0] > before
                self._place(values[0], tuple(vector))

    def _remember(self, vector: Vector, again: bool) -> bool:
        """Whether a point is new; it is no more.

        Args:
            vector: the point.
            again: whether one with other genes beside a path that is known is new, too.
        """
        seen = self._seen.setdefault(self._space.path_at(vector), set())
        others = tuple(round(unit, DIGITS) for unit in self._canonical(vector)[self._space.place_count :])
        if others in seen or (seen and not again):
            return False
        seen.add(others)
        return True

    def _place(self, fitness: float, vector: Vector) -> None:
        known = Known(fitness, self._space.path_at(vector), vector)
        self._remember(vector, again=True)
        insort(self._ranked, known, key=lambda entry: -entry.fitness)  # of equals the older is first
        elite = self._elites.setdefault(joints(known.path), known)
        if elite.fitness < fitness:
            self._elites[joints(known.path)] = known

    def _changed(self) -> tuple[tuple[float, ...], tuple[str, float]] | None:
        """A path that is not known, and where it is from."""
        names = list(self._changes.by_name)
        for _ in range(ATTEMPTS):
            fitness, path, vector = self._pick()
            self._changes_of[path] += 1  # of one that has no new neighbours, too
            change = self._random.choices(names, [self._share(name) for name in names])[0]
            keeps = bool(self._sigmas) and self._random.random() < KEPT  # the path, and moves the other genes alone
            moves = keeps or (bool(self._sigmas) and self._random.random() < MOVED)
            changed = path if keeps else self._changes.by_name[change](path)
            point = self._space.point_of(changed) if changed else None
            if point is None:
                self._tried[change] += 1  # of some spaces it never is a path
                continue
            places = self._space.place_count
            others = self._moved(vector[places:]) if moves else vector[places:]
            found = (*point[:places], *others)
            # A path is changed into those that are new, and the genes beside it are moved on those that are known.
            if self._remember(found, again=keeps):
                return found, ("" if keeps else change, fitness)
        return None

    def _moved(self, others: Vector) -> list[float]:
        """Some of the genes beside the path, one at least, are moved."""
        always = self._random.randrange(len(others))
        moved = [number == always or self._random.random() < MOVED for number in range(len(others))]
        return [
            min(max(self._random.gauss(unit, sigma), 0.0), 1.0) if moves else unit
            for unit, sigma, moves in zip(others, self._sigmas, moved, strict=True)
        ]

    def _pick(self) -> Known:
        """The path to be changed: a good one, or the best of the simple ones."""
        if not self._ranked:
            start = next(iter(self._seen))
            return Known(0.0, start, self._space.point_of(start) or ())
        if self._random.random() < self._options.niches:
            simplest = sorted(self._elites)
            return self._elites[simplest[self._falling(len(simplest))]]
        best = self._ranked[:CONSIDERED]
        patience = self._options.patience
        order = sorted(range(len(best)), key=lambda rank: rank + self._changes_of[best[rank].path] / patience)
        return best[order[self._falling(len(order))]]

    def _mate(self) -> Path | None:
        """What the path to be changed is crossed with."""
        return self._pick().path if len(self._ranked) > 1 else None

    def _falling(self, count: int) -> int:
        """One of so many places, the first most often."""
        place = 0
        while place + 1 < count and self._random.random() > self._options.greed:
            place += 1
        return place

    def _share(self, change: str) -> float:
        """How often a kind of change is made: as it has helped, and never never."""
        return 0.1 + (self._helped[change] + 1) / (self._tried[change] + 2)


def joints(path: Path) -> int:
    """How many layers do not follow the one before them in its model."""
    return sum(after != Step(before.model, before.layer + 1) for before, after in pairwise(path))
