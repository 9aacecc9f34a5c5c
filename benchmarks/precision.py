"""What a candidate of a search takes on a CPU in float32 and in bfloat16: seconds of its processor, and its scores.

    python benchmarks/search/beds.py build real_model
    python benchmarks/precision.py [--search benchmarks/search/real_model/search.yml]

The middle of every gene's range, on all search items, once to begin with and once for the time; one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from evolve.config.reader import read_search
from evolve.evaluation.request import Request
from evolve.preflight.prepare import prepare
from evolve.search_loop.open_evaluator import create_evaluator

BED = Path(__file__).parent / "search" / "real_model" / "search.yml"


def main() -> None:
    """Print a line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", type=Path, default=BED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in ("float32", "bfloat16"):
        backend = {"backend.dtype": dtype, "backend.device": "cpu", "workers": {"count": 1, "cpus": 1}}
        prepared = prepare(read_search(options.search, backend))
        items = {name: split.search for name, split in prepared.splits.items()}
        recipe = prepared.space.decode([0.5] * len(prepared.space.coordinates))
        evaluator = create_evaluator(prepared)
        for number in range(2):
            started = time.process_time()
            (found,) = evaluator.evaluate([Request(number, recipe, items)])
            seconds = time.process_time() - started
        evaluator.close()
        mean = statistics.fmean(statistics.fmean(values.values()) for values in found.scores.values())
        print(
            f"{dtype:<10}{sum(map(len, items.values())):>6} items{seconds:>8.1f} s   mean score {mean:.3f}", flush=True
        )


if __name__ == "__main__":
    main()
