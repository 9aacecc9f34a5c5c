"""What a pool of workers costs the process that searches: `python benchmarks/worker_pool.py [--workers 64]`.

Workers are simulated and answer in a random order, at once, so that all that is measured is the pool's own work.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from typing import Any

from evolve.evaluation.crew import Report
from evolve.evaluation.request import Request
from evolve.evaluation.worker_pool import WorkerPool
from evolve.trials.trial import Evaluation

GENES = 224
ITEMS = {"task": tuple(range(600))}


class SimulatedCrew:
    """One answer at a time, of any worker that has been asked."""

    def __init__(self, seed: int) -> None:
        self._random, self._waiting, self._orders = random.Random(seed), list[Report](), 0

    def start(self, worker: int) -> int:
        return self._take(worker, None)

    def ask(self, worker: int, method: str, *arguments: Any) -> int:
        scores = {name: dict.fromkeys(items, 0.5) for name, items in arguments[0].items.items()}
        return self._take(worker, Evaluation(arguments[0].number, scores=scores))

    def end(self, worker: int) -> None:
        pass

    def wait(self, seconds: float) -> list[Report]:
        place = self._random.randrange(len(self._waiting))
        self._waiting[place], self._waiting[-1] = self._waiting[-1], self._waiting[place]
        return [self._waiting.pop()]

    def close(self) -> None:
        pass

    def _take(self, worker: int, answer: Any) -> int:
        self._orders += 1
        self._waiting.append(Report(worker, self._orders, answer=answer))
        return self._orders


def requests(count: int) -> Iterator[Request]:
    """As a search makes them, one when a worker is free."""
    for number in range(count):
        yield Request(number, {"models": [{"parameters": {"weight": [0.5] * GENES}}]}, ITEMS)


def main() -> None:
    """Print microseconds of CPU a trial, thousand by thousand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pool = WorkerPool(SimulatedCrew(options.seed), options.workers)
    started = time.process_time()
    for number, _ in enumerate(pool.evaluate(requests(options.trials)), start=1):
        if number % 1000 == 0:
            now = time.process_time()
            print(f"{number:>6} trials, {options.workers} workers: {(now - started) * 1000:.0f} µs of CPU a trial")
            started = now


if __name__ == "__main__":
    main()
