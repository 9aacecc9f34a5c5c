"""Models that harm a merge, which can be left out: whether the search finds out, and what it is worth to tell it.

    python benchmarks/search/switches.py [--seeds 10] [--budget 200] [--optimizers auto,tpe,gp,cat_cma,cma]

Six models with a weight for each third of the layers, from 0.3 to 1.2, and a switch. Two of them harm: a merge is best
without them, and no weight of theirs is small enough. Items are right or wrong as in `optimizers.py`: scores of 400
search items are told, and what counts is the best by them on 4000 others, and whether it has both harmful models
switched off and all others on. Every seed is a landscape of its own, the same for all.

Each optimizer twice: `told` knows which genes count for nothing where a model is switched off, `ignored` does not. The
start has every model on; as in a search each is left out once, before the optimizer is asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from optimizers import DIRECTIONS, HELD_OUT_ITEMS, SEARCH_ITEMS, TASKS, interval

from evolve.optimizers import SearchProblem, create_optimizer
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template

MODELS, HARMFUL, BLOCKS = 6, 2, 3
WEIGHT = {"low": 0.3, "high": 1.2, "init": 0.5, "layers": {"blocks": BLOCKS}}


def space() -> RecipeSpace:
    """The recipe's: weights of every model, then the switches."""
    models = [{"model": f"m{n}", "optional": True, "parameters": {"weight": WEIGHT}} for n in range(MODELS)]
    document = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
    return RecipeSpace.from_template(Template.read(document), layer_count=BLOCKS)


class Landscape:
    """Item scores of merges.

    Args:
        seed: of everything random in it, the harmful models too.
    """

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.harmful = set(generator.choice(MODELS, HARMFUL, replace=False).tolist())
        columns = MODELS * BLOCKS
        harms = np.repeat([model in self.harmful for model in range(MODELS)], BLOCKS)
        self._optima = np.where(harms, -0.2, 0.75 + 0.2 * generator.standard_normal((TASKS, columns)))
        self._directions = generator.standard_normal((TASKS, DIRECTIONS, columns)) * 2.0 / np.sqrt(columns)
        count = SEARCH_ITEMS + HELD_OUT_ITEMS
        self._tastes = generator.standard_normal((TASKS, count, columns)) / np.sqrt(columns)
        self._difficulties = generator.normal(-0.5, 0.5, (TASKS, count))

    def score(self, weights: Any) -> tuple[float, float]:
        """Of search items and of others, by the weights that models have: 0 where they are left out."""
        skills = -np.sum(np.einsum("tdc,tc->td", self._directions, weights - self._optima) ** 2, axis=1) / DIRECTIONS
        correct = skills[:, None] + self._tastes @ (weights - 0.5) > self._difficulties
        return float(correct[:, :SEARCH_ITEMS].mean()), float(correct[:, SEARCH_ITEMS:].mean())


def run(name: str, seed: int, budget: int, told: bool) -> tuple[float, bool]:
    """The held-out score of the best by search score, and whether exactly the harmful models are left out there."""
    made, landscape = space(), Landscape(seed)
    switches = [number for number, axis in enumerate(made.coordinates) if axis.is_switch]
    found: list[tuple[float, float, bool]] = []

    def scored(vector: Sequence[float]) -> float:
        values = [axis.gene.value(unit) for axis, unit in zip(made.coordinates, vector, strict=True)]
        on = [bool(values[number]) for number in switches]
        weights = np.array([values[n] if on[n // BLOCKS] else 0.0 for n in range(MODELS * BLOCKS)], dtype=float)
        search, held_out = landscape.score(weights)
        found.append((search, held_out, {model for model in range(MODELS) if not on[model]} == landscape.harmful))
        return search

    start = tuple(made.start(None))
    first = [start, *((*start[:n], made.coordinates[n].gene.unit(False), *start[n + 1 :]) for n in switches)]
    known = tuple((point, scored(point)) for point in first)
    problem = SearchProblem(
        start=max(known, key=lambda one: one[1])[0],
        sigmas=(0.2,) * len(start),
        choice_counts=tuple(2 if axis.is_switch else 0 for axis in made.coordinates),
        seed=seed,
        known=known,
        evaluations=budget - len(known),
    )
    if told:
        problem = replace(problem, inactive=made.inactive, canonical=made.canonical)
    optimizer = create_optimizer(name, problem)
    while len(found) < budget and (vectors := optimizer.ask()):
        optimizer.tell(vectors, [scored(vector) for vector in vectors])
    _, held_out, is_planted = max(found[:budget], key=lambda one: one[0])
    return held_out, is_planted


def main(arguments: Sequence[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--optimizers", default="auto,tpe,gp,cat_cma,cma")
    options = parser.parse_args(arguments)
    print(f"{'optimizer':<12}{'':<10}{'held out':>16}{'harmful off':>14}")
    for name in options.optimizers.split(","):
        for told in (False, True):
            runs = [run(name, seed, options.budget, told) for seed in range(options.seeds)]
            planted = f"{sum(is_planted for _, is_planted in runs)} of {len(runs)}"
            kind = "told" if told else "ignored"
            print(f"{name:<12}{kind:<10}{interval([score for score, _ in runs]):>16}{planted:>14}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
