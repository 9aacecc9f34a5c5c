"""Whole searches with and without races, on made-up skills: what is found, and for how many item evaluations.

    python benchmarks/search/racing_simulated.py [--seeds 20]

24 weights; four tasks whose skills are best at different weights; every item has a difficulty and leanings of its own
among the weights. Everything but the models is the product: loop, journal, CMA-ES, races. A search may spend 308
candidates of 150 items a task. `found` is the true share of solved items of the best candidate, on 20,000 others.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event as Flag
from typing import Any

import numpy as np

from evolve.config.schema import SearchConfig
from evolve.config.strategy import BudgetConfig
from evolve.evaluation.request import GradientRequest, Request, Slopes
from evolve.optimizers import SearchProblem, create_optimizer
from evolve.scoring.scores.item_statistics import MeanOfItems, score_with_error
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.races import Races
from evolve.search_loop.references import reference_trials
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation, best_of

WEIGHTS, TASKS, ITEMS, OTHERS = 24, 4, 150, 5000
CANDIDATES, POPULATION, SIGMA = 308, 14, 0.15
GENE = {"low": 0.0, "high": 1.0, "init": 0.25}
TEMPLATE = {
    "merge_method": "linear",
    "models": [{"model": f"m{place}", "parameters": {"weight": GENE}} for place in range(WEIGHTS)],
}
SPACE = RecipeSpace.from_template(Template.read(TEMPLATE), layer_count=2)


class World:
    """Skills and items."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self._best = draw.uniform(0.1, 0.9, size=(TASKS, WEIGHTS))
        self._importance = draw.exponential(size=(TASKS, WEIGHTS))
        self._difficulty = draw.normal(scale=1.5, size=(TASKS, ITEMS + OTHERS))
        self._leaning = draw.normal(scale=0.5, size=(TASKS, ITEMS + OTHERS, WEIGHTS))

    def solved(self, weights: np.ndarray) -> np.ndarray:
        """Which items a merge solves, shape (tasks, items)."""
        skill = 3 - 2 * (self._importance * (weights - self._best) ** 2).sum(axis=1)
        solved: np.ndarray = skill[:, None] + self._leaning @ (weights - 0.5) > self._difficulty
        return solved


class Simulated:
    """Scores recipes in a world, and counts."""

    workers = 1

    def __init__(self, world: World) -> None:
        self._world = world
        self.item_evaluations = 0

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """One after the other, so that none has to wait."""
        for request in filter(None, requests):
            solved = self._world.solved(weights_of(request.recipe))
            self.item_evaluations += sum(map(len, request.items.values()))
            scores = {
                name: {item: float(solved[int(name)][item]) for item in items} for name, items in request.items.items()
            }
            yield Evaluation(request.number, scores=scores)

    def differentiate(self, requests: Iterable[GradientRequest]) -> Iterator[Slopes]:
        """Nobody asks."""
        raise NotImplementedError

    def fingerprint(self, recipe: object) -> str:
        """Nobody asks."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""


class MeanTask:
    """A scorer that only aggregates."""

    direction = "maximize"

    def __init__(self, name: str) -> None:
        self.name = name

    def aggregate(self, values: dict[int, float]) -> object:
        """The mean."""
        return score_with_error(MeanOfItems(np.mean), values)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    ways = {"every item": None, "races, tolerance 0": 0.0, "races, resolution": math.nan}
    found = {name: np.array([run(seed, way) for seed in seeds]) for name, way in ways.items()}
    whole = found["every item"]
    for name, rows in found.items():
        difference, saved = rows[:, 0] - whole[:, 0], whole[:, 1] / rows[:, 1]
        print(f"{name:20} found {_interval(rows[:, 0])}, saved {_interval(saved)}, difference {_interval(difference)}")


def run(seed: int, tolerance: float | None) -> tuple[float, int]:
    """True score of the best candidate, and item evaluations. None: no races; NaN: resolution."""
    world = World(seed)
    evaluator = Simulated(world)
    items = {str(task): tuple(range(ITEMS)) for task in range(TASKS)}
    config = SearchConfig.model_validate({"recipe": TEMPLATE, "tasks": list(items)})
    tasks: list[Any] = [MeanTask(name) for name in items]
    function = ObjectiveFunction(tasks, config, None)
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal.open(str(Path(directory) / "journal.log"), create=True)
        budget = BudgetConfig(evaluations=CANDIDATES)
        search = Search(journal, SPACE, evaluator, function, items, budget, lambda event: None, Flag())
        if tolerance is not None:
            allowed = None if math.isnan(tolerance) else tolerance
            search.race_with(Races(journal, items, lambda: function.item_fitness(items), 0.95, allowed, seed))
        search.score_references(reference_trials(SPACE, SPACE.template, mergeable=True)[:5])
        start, sigmas = (GENE["init"],) * WEIGHTS, (SIGMA,) * WEIGHTS
        problem = SearchProblem(start, sigmas, (0,) * WEIGHTS, seed=seed, population_size=POPULATION)
        search.run(create_optimizer("cma", problem))
        best = best_of([trial for trial in search.trials if not trial.is_reference])
    if best is None:
        raise RuntimeError("no candidate was scored on everything")
    return float(world.solved(weights_of(best.recipe))[:, ITEMS:].mean()), evaluator.item_evaluations


def weights_of(recipe: object) -> np.ndarray:
    """The weights of a recipe; a parent stands alone."""
    models = recipe["models"]  # type: ignore[index]
    weights = {entry["model"]: entry.get("parameters", {}).get("weight", 1.0) for entry in models}
    return np.array([weights.get(f"m{place}", 0.0) for place in range(WEIGHTS)])


def _interval(values: np.ndarray) -> str:
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
