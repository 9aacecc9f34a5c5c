"""What the driver itself takes per trial, as a search grows, and what it takes to go on with a long one.

    python benchmarks/search/scale.py --trials 1000 4000 10000

A made-up scorer answers at once, for 64 workers, so that all time is the driver's: asking, writing down, telling.
Printed are milliseconds of processor time per trial at the beginning and at the end, memory that the search added, and
the seconds of processor time until the same search, started again, has replayed its journal.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event as Flag

from evolve.config.schema import SearchConfig
from evolve.config.strategy import BudgetConfig
from evolve.evaluation.request import Request
from evolve.optimizers import SearchProblem, create_optimizer
from evolve.scoring.scores.item_statistics import MeanOfItems, score_with_error
from evolve.search_loop.loop import Search
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.references import reference_trials
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.trials.events import Event, TrialFinished
from evolve.trials.journal import Journal
from evolve.trials.trial import Evaluation

WORKERS = 64
MODELS = 8
PART = 500  # trials, at the beginning and at the end
ITEMS = {"one": tuple(range(50)), "two": tuple(range(50))}
GENE = {"low": 0.0, "high": 1.0}
TEMPLATE = {
    "merge_method": "linear",
    "models": [{"model": f"model{number}", "parameters": {"weight": GENE}} for number in range(MODELS)],
}
SPACE = RecipeSpace.from_template(Template.read(TEMPLATE), layer_count=24)


class AtOnce:
    """Workers whose answers are there when they are asked for."""

    workers = WORKERS

    def evaluate(self, requests: Iterable[Request | None]) -> Iterator[Evaluation]:
        """In groups of as many as there are workers."""
        requests = iter(requests)
        while group := list(itertools.takewhile(lambda one: one is not None, itertools.islice(requests, WORKERS))):
            yield from (_evaluation(request) for request in group if request is not None)


def _evaluation(request: Request) -> Evaluation:
    weights = [entry.get("parameters", {}).get("weight", 1.0) for entry in request.recipe["models"]]
    value = 1.0 - sum((weight - 0.3) ** 2 for weight in weights)
    return Evaluation(request.number, scores={name: dict.fromkeys(ids, value) for name, ids in request.items.items()})


class Mean:
    """A scorer that only aggregates."""

    direction = "maximize"

    def __init__(self, name: str) -> None:
        self.name = name

    def aggregate(self, values: Mapping[int, float]) -> object:
        """The mean."""
        return score_with_error(MeanOfItems(statistics.fmean), values)


class Stopwatch:
    """Processor time of this process at every trial that finished."""

    def __init__(self) -> None:
        self.times = [time.process_time()]

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialFinished):
            self.times.append(time.process_time())

    def milliseconds(self, first: int, last: int) -> float:
        """Per trial between two of them."""
        return 1000 * (self.times[last] - self.times[first]) / (last - first)


def search(path: Path, trials: int, steady: bool) -> Stopwatch:
    """Begin a search, or go on with it."""
    path.mkdir(exist_ok=True)
    watch = Stopwatch()
    config = SearchConfig(recipe=TEMPLATE, tasks=list(ITEMS))  # type: ignore[arg-type]
    function = ObjectiveFunction([Mean(name) for name in ITEMS], config, None)  # type: ignore[misc]
    journal = Journal.open(str(path / "journal.log"), create=True)
    made = Search(journal, SPACE, AtOnce(), function, ITEMS, BudgetConfig(evaluations=trials), watch, Flag())  # type: ignore[arg-type]
    made.score_references(reference_trials(SPACE, SPACE.template, mergeable=True))
    problem = SearchProblem(
        (0.5,) * MODELS, (0.2,) * MODELS, (0,) * MODELS, seed=3, population_size=WORKERS, steady_state=steady
    )
    made.run(create_optimizer("cma", problem), steady_state=steady)
    return watch


def measured(mode: str, trials: int) -> str:
    """A line of the table."""
    steady = mode == "steady_state"
    with tempfile.TemporaryDirectory() as directory:
        search(Path(directory) / "warm", WORKERS, steady)  # what is loaded and compiled once is none of the search's
        before = _memory()
        watch = search(Path(directory) / "measured", trials, steady)
        grown, end = _memory() - before, len(watch.times) - 1
        began = time.process_time()
        search(Path(directory) / "measured", trials, steady)
        resumed = time.process_time() - began
    first, last = watch.milliseconds(0, PART), watch.milliseconds(end - PART, end)
    return f"{mode:14}{trials:8}{first:7.1f} ms{last:7.1f} ms{grown / trials:6.1f} KB each{resumed:8.1f} s"


def main() -> None:
    """A line for each mode and length, from a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 4000, 10000])
    parser.add_argument("--modes", nargs="+", default=["generations", "steady_state"])
    options = parser.parse_args()
    print(f"{'mode':14}{'trials':>8}{'first':>10}{'last':>10}{'memory':>14}{'resume':>10}")
    for mode, trials in itertools.product(options.modes, options.trials):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            print(process.submit(measured, mode, trials).result(), flush=True)


def _memory() -> float:
    """The most that the process ever had, in KB."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
