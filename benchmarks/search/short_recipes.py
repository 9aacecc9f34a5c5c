"""How much a recipe with fewer numbers loses: the demo zoo's best recipes made shorter, over seeds.

    python benchmarks/search/short_recipes.py --seeds 5

For each seed a search along the gradient, then `evolve simplify`'s forms of its best recipe at some lengths, each
scored on all held-out items beside the best, with the numbers of the least squares and with those that their gradient
leads to. None of these steered the search or chose a form: lengths are given, and
forms are made from gradients on search items. One line of JSON a seed in `build/short_recipes/`; what is there is not
done again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from beds import BEDS, ROOT
from one_search import best_found

from evolve.preflight.prepare import prepare
from evolve.search_loop.objective import ObjectiveFunction
from evolve.search_loop.open_evaluator import create_evaluator
from evolve.simplify.examiner import Examiner
from evolve.simplify.long_recipe import LongRecipe, count_numbers
from evolve.simplify.refit import refit
from evolve.simplify.short_forms import short_forms
from evolve.simplify.simplification import metric_at
from evolve.trials.journal import Journal

OUTPUT = ROOT / "build" / "short_recipes"
LENGTHS = (4, 8, 12, 20, 30, 40, 60)


def measure(bed: str, seed: int, threads: int) -> dict[str, Any]:
    """One search, and what its short forms lose."""
    overrides = {"seed": seed, "workers": {"count": 1, "cpus": threads}, "budget": {"evaluations": 3}}
    prepared = prepare(BEDS[bed].read(overrides))
    journal = Journal.open(str(OUTPUT / f"{bed}-{seed}.log"), create=True)
    evaluator = create_evaluator(prepared)
    try:
        best = best_found(prepared, journal, evaluator)
        held_out = {name: split.held_out for name, split in prepared.splits.items()}
        function = ObjectiveFunction(prepared.scorers, prepared.config, prepared.space.base_model)
        examiner = Examiner(prepared, journal, evaluator, function, best.measured, held_out, {}, Event())
        examiner = replace(examiner, long=examiner.scored(best.recipe, held_out))
        long = LongRecipe.of(prepared, best)
        metric = metric_at(examiner, best, long, max(LENGTHS))
        found: dict[str, Any] = {"seed": seed, "long": count_numbers(best.recipe), "least_squares": {}, "moved": {}}
        found["objective"] = examiner.objectives(best.recipe, held_out)[0].value
        for form in short_forms(long.sites, metric, max(LENGTHS)):
            if form.numbers in LENGTHS:
                for name, one in (("least_squares", form), ("moved", refit(examiner, long, form))):
                    if one is None:
                        continue
                    difference = examiner.difference(long.written(one.settings(long.sites)), held_out)
                    if difference is not None:
                        found[name][form.numbers] = [difference.value, difference.low, difference.high]
        return found
    finally:
        evaluator.close()


def table(results: list[dict[str, Any]]) -> str:
    """Numbers against what they lose, mean over seeds with its 95 % interval."""
    lines = [
        "| numbers | least squares, minus the best | moved | of one seed, by item |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for length in map(str, LENGTHS):
        cells, halves = [], []
        for name in ("least_squares", "moved"):
            own = [found[name][length] for found in results if length in found[name]]
            values = [value for value, _, _ in own]
            halves += [(high - low) / 2 for _, low, high in own]
            spread = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            cells.append(f"{statistics.fmean(values):+.4f} ± {spread:.4f}" if values else "-")
        if halves:
            lines.append(f"| {length} | {' | '.join(cells)} | ± {statistics.fmean(halves):.4f} |")
    best = statistics.fmean(found["objective"] for found in results)
    return "\n".join([*lines, f"\n{len(results)} seeds; the best have {results[0]['long']} numbers and {best:.4f}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bed", choices=sorted(BEDS), default="demo_zoo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in range(arguments.seeds):
        file: Path = OUTPUT / f"{arguments.bed}-{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(measure(arguments.bed, seed, arguments.threads)), encoding="utf-8")
        results.append(json.loads(file.read_text(encoding="utf-8")))
        print(json.dumps(results[-1]), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
