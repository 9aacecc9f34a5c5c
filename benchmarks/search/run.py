"""The benchmark that decides: methods on beds over seeds, held-out score against item evaluations and seconds.

    python benchmarks/search/run.py --beds demo_zoo conventions --methods default mergekit_evolve --seeds 20
    python benchmarks/search/tables.py                             # of all that was measured

One line of JSON in `benchmarks/search/measured/` for every bed, method and seed, with the commit of the code that was
measured. What is there is not measured again: take lines out to measure them anew. A seed draws which items steer the
search and which are held out, the order of items, and what an optimizer draws.

A curve has a point wherever the search changes its mind about its best recipe: item evaluations and seconds of
processor time up to there (with one thread the time on a machine of its own, whatever else runs), and the recipe's
score on held-out items, which is measured after the search and charged to nobody. The best is what the search knows: by
the looks of a gradient start, then by the search items. No method sees a held-out item, so that the product's second
exam of finalists is not part of this.

`mergekit_evolve` is its loop: a genome of layers, models and parameters, weights 1/n, densities 1, pycma's defaults
with a first step of 1/6, no bounds, 100 candidates on all items, the best one seen. `cma_0_1_0` is this project's
search before the gradient.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from beds import BEDS, ROOT, Bed
from tables import MEASURED, results

from evolve.evaluation.request import Request
from evolve.preflight.prepare import Prepared, prepare
from evolve.search_loop.conduct import conduct
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.open_evaluator import create_evaluator
from evolve.search_loop.references import reference_trials
from evolve.space.genome_space import GenomeDefinition, GenomeSpace
from evolve.trials.events import Event, PointLookedAt, TrialFinished
from evolve.trials.journal import Journal
from evolve.trials.spending import of_the_search
from evolve.trials.trial import Kind

OPENING = {"budget.evaluations": 3}  # the candidates of the start, and no other
OLD = {
    "start.method": "references",
    "optimizer.name": "cma",
    "optimizer.population_size": 14,
    "optimizer.sigma": 0.15,
    "budget.evaluations": 308,
}
METHODS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "mergekit_evolve": {},
    "cma_0_1_0": OLD,
    "cma_0_1_0, 27 candidates": {**OLD, "budget.evaluations": 27},
    "cma_racing": {**OLD, "racing": {}},
    "gradient": OPENING,
    "gradient, 3,200 items": {"budget.items": 3200},
    "gradient, log-likelihood": {**OPENING, "start.exponent": 0.0},
    "gradient, probability": {**OPENING, "start.exponent": 1.0},
    "gradient, by layer": {**OPENING, "resolution": "layer"},
    "gradient, by model": {**OPENING, "resolution": "model"},
    "gradient, by gene": {**OPENING, "resolution": "gene"},
    "gradient, gold": {**OPENING, "start.targets": "gold"},
    "gradient, parents' answers": {**OPENING, "start.targets": "parents"},
    "gradient, 8 items": {**OPENING, "start.items": 8},
}
FEWEST_CANDIDATES_MERGEKIT = 100


class Curve:
    """What a search thought best, when: a watcher."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._started = time.process_time()
        self.search: Search | None = None
        self.points: list[tuple[int, float, Mapping[str, Any]]] = []
        self.opening: int | None = None  # how many points there were when the black box told its first result

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialFinished) and event.trial.batch >= 0 and event.trial.kind is Kind.CANDIDATE:
            self.opening = len(self.points) if self.opening is None else self.opening
        match event:
            case PointLookedAt() if event.objective >= event.best:
                self.add(self._prepared.space.decode(event.vector))
            case TrialFinished() if event.best is not None and event.best.number == event.trial.number:
                self.add(event.trial.recipe)

    def add(self, recipe: Mapping[str, Any]) -> None:
        spent = of_the_search(self.search.spent()) if self.search is not None else 0
        self.points.append((spent, time.process_time() - self._started, recipe))


def measure(bed: Bed, method: str, seed: int, threads: int, most_points: int) -> dict[str, Any]:
    """One search, and the held-out scores of what it thought best on the way."""
    overrides = {**METHODS[method], "seed": seed, "workers": {"count": 1, "cpus": threads}}
    if method in ("default",) or method.startswith("gradient"):
        overrides = {"optimizer": {"name": "auto"}, "budget": {}, **overrides}
    for limit in ("evaluations", "items"):
        if f"budget.{limit}" in overrides:
            overrides["budget"] = {limit: overrides.pop(f"budget.{limit}")}
    prepared = prepare(bed.read(overrides))
    evaluator = create_evaluator(prepared)
    function = ObjectiveFunction(prepared.scorers, prepared.config, prepared.space.base_model)
    items = {name: split.search for name, split in prepared.splits.items()}
    curve = Curve(prepared)
    if method == "mergekit_evolve":
        spent = _mergekit_evolve(prepared, evaluator, function, items, seed, curve)
    else:
        spent = _search(prepared, evaluator, function, items, curve)
    seconds = time.process_time() - curve._started
    held_out = {name: split.held_out for name, split in prepared.splits.items()}
    known: dict[str, float] = {}

    def score(recipe: Mapping[str, Any]) -> float:
        key = json.dumps(recipe, sort_keys=True)
        if key not in known:
            (evaluation,) = evaluator.evaluate([Request(0, recipe, held_out)])
            known[key] = function(evaluation) if evaluation.failure is None else math.nan
        return known[key]

    references = {
        trial.label: score(trial.recipe)
        for trial in reference_trials(prepared.space, prepared.template, prepared.same_depth)
        if seed < 3  # that they are what they are is seen after a few draws of items
    }
    points = [[spent_at, at, score(recipe)] for spent_at, at, recipe in _thinned(curve.points, most_points)]
    opening = curve.points[: curve.opening][-1:]
    row = {
        "bed": bed.name,
        "method": method,
        "seed": seed,
        "points": points,
        "opening": [[spent_at, at, score(recipe)] for spent_at, at, recipe in opening],
        "items": spent,
        "seconds": seconds,
        "references": references,
    }
    evaluator.close()  # its models would stay in memory beside the next search's
    return row


def _thinned(points: Sequence[tuple[int, float, Any]], most: int) -> list[tuple[int, float, Any]]:
    """At most so many of them, evenly over the logarithm of item evaluations; the last always."""
    if len(points) <= most:
        return list(points)
    low, high = math.log(points[0][0] + 1), math.log(points[-1][0] + 1)
    kept = {len(points) - 1}
    for place in range(most - 1):
        goal = math.exp(low + (high - low) * place / (most - 1))
        kept.add(max(index for index, point in enumerate(points) if point[0] + 1 <= goal + 1e-6))
    return [points[index] for index in sorted(kept)]


def _search(
    prepared: Prepared, evaluator: Any, function: ObjectiveFunction, items: Mapping[str, Any], curve: Curve
) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as directory:
        search = Search(
            journal=Journal.open(f"{directory}/journal.log", create=True),
            space=prepared.space,
            evaluator=evaluator,
            objective_function=function,
            items=items,
            budget=prepared.config.budget,
            watch=curve,
            stop=threading.Event(),
        )
        curve.search = search
        conduct(search, prepared)
        return {str(purpose): count for purpose, count in search.spent().items()}


def _mergekit_evolve(
    prepared: Prepared,
    evaluator: Any,
    function: ObjectiveFunction,
    items: Mapping[str, tuple[int, ...]],
    seed: int,
    curve: Curve,
) -> dict[str, int]:
    import cma

    base = prepared.space.base_model
    definition = GenomeDefinition(
        models=tuple(model for model in prepared.space.models if model != base),
        merge_method=str(prepared.template.document["merge_method"]),
        base_model=base,
        layer_granularity=1,
    )
    layers = len({axis.layers for axis in prepared.space.coordinates if axis.layers})
    space = GenomeSpace(definition, layers)
    strategy = cma.CMAEvolutionStrategy(
        [float(axis.gene.value(unit)) for axis, unit in zip(space.coordinates, space.start(None), strict=True)],
        1 / 6,
        {"seed": seed + 1, "verbose": -9, "verb_log": 0, "maxfevals": FEWEST_CANDIDATES_MERGEKIT},
    )
    best, spent, each = -math.inf, 0, sum(map(len, items.values()))
    while not strategy.stop():
        vectors = strategy.ask()
        costs = []
        for vector in vectors:
            values = [float(f"{abs(value):.6g}") for value in vector]
            pairs = zip(space.coordinates, values, strict=True)
            # More than all entries are all of them.
            recipe = space.recipe_of(
                [min(value, 1.0) if axis.parameter == "density" else value for axis, value in pairs]
            )
            (evaluation,) = evaluator.evaluate([Request(0, recipe, items)])
            objective = function(evaluation) if evaluation.failure is None else -1.0
            costs.append(-objective)
            spent += each
            if objective > best:
                best = objective
                curve.points.append((spent, time.process_time() - curve._started, recipe))
        strategy.tell(vectors, costs)
    return {str(Kind.CANDIDATE): spent}


def _one(job: tuple[str, str, int, int, int]) -> str:
    bed, method, seed, threads, most_points = job
    import torch

    torch.set_num_threads(threads)
    started = time.process_time()
    try:
        found = measure(BEDS[bed], method, seed, threads, most_points)
    except Exception as error:  # one that fails must not cost the others
        return f"{bed} {method} {seed}: {type(error).__name__}: {error}"
    MEASURED.mkdir(exist_ok=True)
    row = json.dumps(_rounded({**found, "commit": _commit()})) + "\n"
    with (MEASURED / f"{bed}.jsonl").open("a", buffering=len(row) + 1) as file:  # one write: others append as well
        file.write(row)
    last = found["points"][-1][2] if found["points"] else math.nan
    took = f"{sum(found['items'].values())} items, {time.process_time() - started:.0f} s"
    return f"{bed} {method} {seed}: {last:.3f} after {took}"


def _rounded(value: Any) -> Any:
    """Its numbers to four places: differences of scores are hundredths, and of seconds tenths."""
    match value:
        case float():
            return round(value, 4)
        case list():
            return [_rounded(item) for item in value]
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
    return value


def _commit() -> str:
    """The latest that changed the product, with a plus sign where it was changed since."""
    product = ["--", "evolve", "merge_core"]
    asked = ["git", "log", "-1", "--format=%h", *product]
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", *product], cwd=ROOT, check=False).returncode
    return f"{commit}+" if changed else commit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", nargs="+", choices=list(BEDS), default=["demo_zoo"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["default"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--points", type=int, default=16, help="of a curve, at most, scored on held-out items")
    arguments = parser.parse_args()
    done = {(found["bed"], found["method"], found["seed"]) for found in results()}
    jobs = [
        (bed, method, seed, arguments.threads, arguments.points)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        for bed in arguments.beds
        for method in arguments.methods
        if (bed, method, seed) not in done
    ]
    os.chdir(ROOT)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for line in pool.imap_unordered(_one, jobs):
            print(line, flush=True)


if __name__ == "__main__":
    main()
