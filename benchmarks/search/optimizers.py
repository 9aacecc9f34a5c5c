"""Which optimizer for which search: every one on landscapes made like a merge's, behind the contract of the search.

    python benchmarks/search/optimizers.py [--seeds 12] [--spaces numbers-12,mixed] [--optimizers cma,gp] [--json FILE]

A landscape has four tasks, each with an optimum of its own in a few directions that all genes mix into, and items that
are right or wrong: an item is right where its task's skill there, and a taste of its own, exceed its difficulty. So
scores move by whole items, tasks conflict, and what is best on the 400 search items is not quite best on others. An
optimizer begins at the uniform merge, knows what it scored, and is told what candidates score on the search items. What
counts is the candidate with the best search score, on 4000 other items: mean over seeds (every seed has a landscape of
its own, the same for all optimizers) with a 95 % interval of that mean.

Spaces: `numbers-N` has N continuous genes; `mixed` eight, two genes of five steps and two choices; `choices` eight
choices of three; `constrained-12` forbids a quarter of the cube; `pareto-12` and `pareto4-12` have two and four
objectives, where what counts is the hypervolume of the front by the held-out scores of the front by search scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy import stats

from evolve.optimizers import OPTIMIZERS, Fitness, SearchProblem, create_optimizer
from evolve.scoring import rank_value

BUDGETS = (50, 100, 300)
GP_BUDGET = 100
TASKS = 4
SEARCH_ITEMS, HELD_OUT_ITEMS = 100, 1000  # of each task
DIRECTIONS = 6  # that a task's skill depends on
START = 0.35


@dataclass(frozen=True)
class Space:
    """Which genes there are, and how many objectives."""

    numbers: int = 0
    steps: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()
    objectives: int = 1
    constrained: bool = False

    @property
    def genes(self) -> int:
        """Of all kinds."""
        return self.numbers + len(self.steps) + len(self.choices)


SPACES = {
    **{f"numbers-{genes}": Space(genes) for genes in (4, 12, 24, 52)},
    "mixed": Space(8, (5, 5), (4, 3)),
    "choices": Space(0, (), (3,) * 8),
    "constrained-12": Space(12, constrained=True),
    "pareto-12": Space(12, objectives=2),
    "pareto4-12": Space(12, objectives=4),
}


class Landscape:
    """Item scores as a function of genes.

    Args:
        space: of the genes.
        seed: of everything random in it.
    """

    def __init__(self, space: Space, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._space, columns = space, space.numbers + len(space.steps) + sum(space.choices)
        self._optima = 0.5 + 0.18 * generator.standard_normal((TASKS, columns))
        self._directions = generator.standard_normal((TASKS, DIRECTIONS, columns)) * 2.0 / np.sqrt(columns)
        count = SEARCH_ITEMS + HELD_OUT_ITEMS
        self._tastes = 1.5 * generator.standard_normal((TASKS, count, columns)) / np.sqrt(columns)
        self._difficulties = generator.normal(-0.35, 0.35, (TASKS, count))
        self._forbidden = generator.standard_normal(columns)

    def correct(self, vector: Sequence[float]) -> Any:
        """Task x item: whether it is right, search items first."""
        encoded = self._encode(vector)
        shifts = np.einsum("tdc,tc->td", self._directions, encoded - self._optima)
        skills = -np.sum(shifts**2, axis=1) / DIRECTIONS
        return skills[:, None] + self._tastes @ (encoded - 0.5) > self._difficulties

    def violation(self, vector: Sequence[float]) -> float:
        """By how much it is outside the constraint, which three quarters of the cube are inside of."""
        outside = float(self._forbidden @ (self._encode(vector) - 0.5)) / (
            0.29 * float(np.linalg.norm(self._forbidden))
        )
        return max(outside - 0.67, 0.0) if self._space.constrained else 0.0

    def _encode(self, vector: Sequence[float]) -> Any:
        """Numbers as they are, a choice as one number for each of its values."""
        ordered = self._space.numbers + len(self._space.steps)
        parts = [np.asarray(vector[:ordered], dtype=float)]
        for unit, count in zip(vector[ordered:], self._space.choices, strict=True):
            parts.append(np.eye(count)[min(int(unit * count), count - 1)])
        return np.concatenate(parts)


@dataclass(frozen=True)
class Candidate:
    """One that was scored."""

    search: tuple[float, ...]
    held_out: tuple[float, ...]
    violation: float

    @property
    def told(self) -> Fitness:
        """What the optimizer is told of it."""
        if self.violation:
            return rank_value(self.violation)
        return self.search if len(self.search) > 1 else self.search[0]


def scored(landscape: Landscape, space: Space, vector: Sequence[float]) -> Candidate:
    """A candidate by the mean over its tasks, in as many groups as there are objectives."""
    correct = landscape.correct(vector)
    groups = np.array_split(np.arange(TASKS), space.objectives)
    search, held_out = (
        tuple(float(part[group].mean()) for group in groups)
        for part in (correct[:, :SEARCH_ITEMS], correct[:, SEARCH_ITEMS:])
    )
    return Candidate(search, held_out, landscape.violation(vector))


def run(name: str, space: Space, seed: int, budget: int) -> tuple[list[Candidate], float]:
    """All candidates of a search, and the seconds that the optimizer itself took."""
    landscape = Landscape(space, seed)
    name, _, variant = name.partition("/")
    start = tuple([START] * space.numbers + [0.5] * len(space.steps) + [0.5 / count for count in space.choices])
    problem = SearchProblem(
        start=start,
        sigmas=(0.2,) * space.genes,
        choice_counts=(0,) * (space.numbers + len(space.steps)) + space.choices,
        step_counts=(0,) * space.numbers + space.steps + (0,) * len(space.choices),
        seed=seed,
        known=((start, scored(landscape, space, start).told),),
        objectives=space.objectives,
        constrained=space.constrained,
        evaluations=budget,
        options=json.loads(variant) if variant else {},
    )
    began, scoring = time.process_time(), 0.0
    optimizer = create_optimizer(name, problem)
    candidates: list[Candidate] = []
    while len(candidates) < budget and (vectors := optimizer.ask()):
        asked = time.process_time()
        batch = [scored(landscape, space, vector) for vector in vectors]
        scoring += time.process_time() - asked
        optimizer.tell(vectors, [candidate.told for candidate in batch])
        candidates += batch
    return candidates, time.process_time() - began - scoring


def outcome(candidates: Sequence[Candidate], objectives: int) -> float:
    """Held-out score of the best by search score; of several objectives the hypervolume of their front."""
    inside = [candidate for candidate in candidates if not candidate.violation]
    if not inside:
        return 0.0
    if objectives == 1:
        return max(inside, key=lambda candidate: candidate.search[0]).held_out[0]
    front = [one for one in inside if not any(_beats(other.search, one.search) for other in inside)]
    return _hypervolume(np.array([candidate.held_out for candidate in front]))


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _hypervolume(front: Any, points: int = 2**14) -> float:
    """Share of the unit cube that the front is above, by points spread evenly over it."""
    cube = stats.qmc.Sobol(front.shape[1], seed=0).random(points)
    return float(np.mean((front[:, None, :] >= cube[None, :, :]).all(axis=2).any(axis=0)))


def interval(values: Sequence[float]) -> str:
    """The mean with half the width of its 95 % interval."""
    mean = statistics.fmean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} ±{half:.3f}"


def main() -> None:
    """Print a table for each space."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--spaces", default=",".join(SPACES))
    parser.add_argument(
        "--optimizers", default="", help="names, each with options as NAME/JSON; by default all that fit"
    )
    parser.add_argument("--json", type=Path, help="writes every value")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values: dict[str, Any] = {}
    for title in arguments.spaces.split(","):
        space = SPACES[title]
        names = arguments.optimizers.split(";") if arguments.optimizers else _fitting(space)
        print(f"\n{title}: best by search score, on held-out items, after so many candidates ({arguments.seeds} seeds)")
        print(f"{'optimizer':28s}" + "".join(f"{budget:>16d}" for budget in BUDGETS) + "   seconds")
        for name in names:
            budgets = [budget for budget in BUDGETS if name != "gp" or budget <= GP_BUDGET]
            runs = [run(name, space, seed, budgets[-1]) for seed in range(arguments.seeds)]
            cells = []
            for budget in budgets:
                found = [outcome(candidates[:budget], space.objectives) for candidates, _ in runs]
                values[f"{title}/{name}/{budget}"] = found
                cells.append(interval(found))
            seconds = statistics.fmean(seconds for _, seconds in runs)
            cells += [""] * (len(BUDGETS) - len(cells))
            print(f"{name:28s}" + "".join(f"{cell:>16s}" for cell in cells) + f"{seconds:10.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(values) + "\n", encoding="utf-8")


def _fitting(space: Space) -> list[str]:
    names = [
        name
        for name, found in OPTIMIZERS.items()
        if name not in ("auto", "grid", "path") and (space.objectives == 1 or found.several_objectives)
    ]
    return [*names, *(['cma/{"CMA_diagonal": true}'] if space.objectives == 1 else [])]


if __name__ == "__main__":
    main()
