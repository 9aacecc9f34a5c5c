"""Whether a long search keeps what it takes: memory, open files and threads, at several lengths.

    python benchmarks/search/soak.py --candidates 500 1000 2000                # in this process
    python benchmarks/search/soak.py --candidates 500 1000 2000 --workers 2    # on Ray

One run on the demo zoo's models as they are on disk, with a scorer that returns at once: each candidate is merged into
the live model, scored and written down as in any other run. A line for the driver; one for each worker, if on Ray.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path

import psutil
import yaml

from evolve.actions.run import run
from evolve.config.reader import read_search
from evolve.preflight.prepare import prepare
from evolve.trials.events import Event, TrialFinished

ZOO = Path(__file__).resolve().parents[2] / "configs" / "demo_zoo"
EXPERTS = ("sorting", "shift", "reversal")
SCORER = """
def score(model, items):
    return [1.0] * len(items)
"""


class Meter:
    """Prints a line when the search has so many candidates."""

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialFinished) and event.candidates_done in self.counts:
            self.counts.remove(event.candidates_done)
            gc.collect()
            print(f"{event.candidates_done:10}{_taken(psutil.Process())}{len(gc.get_objects()):12}  driver", flush=True)
            for process in psutil.Process().children(recursive=True):
                if process.name().startswith("ray::Worker"):
                    print(f"{'':10}{_taken(process)}{'':12}  worker {process.pid}", flush=True)


def _taken(process: psutil.Process) -> str:
    return f"{process.memory_info().rss / 2**20:10.1f} MB{process.num_fds():8}{process.num_threads():10}"


def write_search(directory: Path, scorer: str, candidates: int) -> Path:
    """A search.yml for the demo zoo, with the user's own scorer beside it.

    Args:
        directory: where both are written.
        scorer: the text of a module with a function `score`.
        candidates: the budget.
    """
    (directory / "own_scorer.py").write_text(scorer)
    search = {
        "recipe": {
            "merge_method": "linear",
            "models": [
                {"model": str(ZOO / name), "parameters": {"weight": {"low": 0.0, "high": 1.0}}} for name in EXPERTS
            ],
            "dtype": "bfloat16",
        },
        "tasks": [{"python": "own_scorer:score", "items": 4}],
        "start": "references",
        "optimizer": "cma",
        "budget": {"evaluations": candidates},
        "items": {"search": 2, "held_out": 0},
    }
    path = directory / "search.yml"
    path.write_text(yaml.safe_dump(search))
    return path


def main() -> None:
    """A line for each length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 500, 1000, 2000])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    counts = sorted(options.candidates)
    print(f"{'candidates':>10}{'memory':>13}{'files':>8}{'threads':>10}{'objects':>12}")
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        workers = {"workers.count": options.workers, "workers.cpus": 1}
        search = read_search(write_search(directory, SCORER, counts[-1]), workers)
        run(prepare(search), directory / "out", Meter(counts))


if __name__ == "__main__":
    main()
