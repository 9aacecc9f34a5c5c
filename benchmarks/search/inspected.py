"""Whether the search.yml that `evolve inspect` writes finds as good a merge as one that was written by hand.

    python benchmarks/search/inspected.py --seeds 20

`evolve inspect` is given the demo zoo's five models and its tasks, and writes a search. For each seed that one runs as
it is written, and so does configs/demo.yml. The best of each, by its own search items, are scored on the items that
neither of the two searches saw, and compared item by item. One line of JSON a seed in `build/inspected/`; what is there
is not done again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from operator import eq, gt, lt
from pathlib import Path
from statistics import fmean
from typing import Any

from beds import BEDS, ROOT
from one_search import best_found

from evolve.actions.inspect import run_inspect
from evolve.actions.inspect_options import InspectOptions
from evolve.config.reader import SearchFile, read_search
from evolve.evaluation.request import Request
from evolve.preflight.prepare import Prepared, prepare
from evolve.search_loop.open_evaluator import create_evaluator
from evolve.trials.journal import Journal

OUTPUT = ROOT / "build" / "inspected"
BED = BEDS["demo_zoo"]
LOOKED_AT = 8  # items of a task: what the models score is not part of the file
Items = Mapping[str, tuple[int, ...]]


def inspected(overrides: Mapping[str, Any]) -> SearchFile:
    """The search of a file that inspect writes, and nobody changes."""
    models = [os.path.relpath(model, ROOT) for model in BED.models]
    tasks = ",".join(task.label for task in BED.read().tasks.values())
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "search.yml"
        run_inspect(InspectOptions(models, tasks, (), None, file, limit=LOOKED_AT), lambda text: None)
        return read_search(file, dict(overrides))


def measure(seed: int) -> dict[str, Any]:
    """Both searches of one seed, and what their best score where neither has looked."""
    overrides = {"seed": seed, "workers": {"count": 1, "cpus": 1}}
    searches = {"inspect": prepare(inspected(overrides)), "by hand": prepare(BED.read(overrides))}
    unseen = _unseen(list(searches.values()))
    found: dict[str, Any] = {"seed": seed, "items": sum(map(len, unseen.values()))}
    scores = []
    for name, prepared in searches.items():
        evaluator = create_evaluator(prepared)
        try:
            with tempfile.TemporaryDirectory() as directory:
                best = best_found(prepared, Journal.open(f"{directory}/journal.log", create=True), evaluator)
            (evaluation,) = evaluator.evaluate([Request(0, best.recipe, unseen)])
        finally:
            evaluator.close()
        scores.append([evaluation.scores[task][item] for task, own in unseen.items() for item in own])
        found[name] = fmean(scores[-1])
    apart = [one - other for one, other in zip(*scores, strict=True)]
    return found | {"difference": fmean(apart), "error": statistics.stdev(apart) / math.sqrt(len(apart))}


def _unseen(searches: Sequence[Prepared]) -> dict[str, tuple[int, ...]]:
    """The held-out items of the last that steered none of them."""
    return {
        name: tuple(sorted(set(split.held_out).difference(*(one.splits[name].search for one in searches))))
        for name, split in searches[-1].splits.items()
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds with their 95 % intervals."""
    lines = [
        "| seeds | inspect | by hand | inspect minus by hand, paired | better, as good, worse |",
        "| --- " * 5 + "|",
    ]
    apart = [found["difference"] for found in results]
    half = 1.96 * statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
    signs = [sum(map(operator, apart, [0.0] * len(apart))) for operator in (gt, eq, lt)]
    means = " | ".join(f"{fmean(found[name] for found in results):.4f}" for name in ("inspect", "by hand"))
    lines.append(f"| {len(apart)} | {means} | {fmean(apart):+.4f} ± {half:.4f} | {', '.join(map(str, signs))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in range(arguments.seeds):
        file = OUTPUT / f"{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(measure(seed)), encoding="utf-8")
        results.append(json.loads(file.read_text(encoding="utf-8")))
        print(json.dumps(results[-1]), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
