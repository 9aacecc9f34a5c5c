"""Which signal tells beforehand whether two models merge well: rank correlations over all pairs of a bed's experts.

    python benchmarks/search/pair_signals.py demo_zoo conventions

What is told: the best of three sizes of the sum of two task vectors (1/2, 3/4, 1), on the two experts' own tasks,
against the mean of the experts there; on search items. What tells it: cosines and sign conflicts of task vectors, what
experts score on one another's tasks, how the gradient of one's task at half of each sees the other, and half of each
scored on a few items that the former does not see. What predicts nothing is no part of `evolve inspect`. Beside it: of
all sets of three models and more, in how many the base is found, and said to be missing where it is.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from beds import BEDS
from scipy.stats import spearmanr

from evolve.evaluation.request import Request
from evolve.inspection.ancestry import find_base
from evolve.inspection.comparison import Comparison, compare_models
from evolve.inspection.pairs import alignment, weight_slopes
from evolve.preflight.prepare import prepare
from evolve.search_loop.open_evaluator import create_evaluator

SIZES = (0.5, 0.75, 1.0)
ITEMS, FEW = 60, 30
DRAWS = 1000


def measure(bed: str) -> None:
    """Print a bed's table."""
    prepared = prepare(BEDS[bed].read({"workers": {"count": 1, "cpus": 1}}))
    evaluator, base = create_evaluator(prepared), prepared.space.base_model
    models = [model for model in prepared.space.models if model != base]
    tasks = [scorer.name for scorer in prepared.scorers]  # in the order of their experts
    many = {name: split.search[:ITEMS] for name, split in prepared.splits.items()}
    few = {name: split.held_out[:FEW] for name, split in prepared.splits.items()}

    def recipe(weights: Mapping[int, float]) -> dict[str, Any]:
        entries = [{"model": models[k], "parameters": {"weight": weight}} for k, weight in weights.items()]
        return {"merge_method": "task_arithmetic", "base_model": base, "models": entries, "dtype": "bfloat16"}

    def scores(weights: Mapping[int, float], of: Sequence[str], items: Mapping[str, tuple[int, ...]]) -> list[float]:
        (found,) = evaluator.evaluate([Request(0, recipe(weights), {name: items[name] for name in of})])
        return [statistics.fmean(found.scores[name].values()) for name in of]

    def aligned(one: int, other: int, size: float) -> float:
        at = recipe({one: size, other: size})
        found = alignment(*(weight_slopes(evaluator, at, tasks[k], few[tasks[k]]) for k in (one, other)))
        return np.nan if found is None else found

    alone = [scores({k: 1.0}, tasks, many) for k in range(len(models))]
    weights = compare_models(prepared.checkpoints, [str(base), *models], base)
    table, conflicts = weights.cosines, weights.vectors.conflicts() if weights.vectors is not None else None
    told: list[float] = []
    signals: dict[str, list[float]] = {}
    for one, other in itertools.combinations(range(len(models)), 2):
        own = [tasks[one], tasks[other]]
        best = max(statistics.fmean(scores({one: size, other: size}, own, many)) for size in SIZES)
        told.append(best - (alone[one][one] + alone[other][other]) / 2)
        found = {
            "cosine of task vectors": table[one + 1][other + 1] if table is not None else np.nan,
            "sign conflicts (fewer)": -conflicts[one + 1][other + 1] if conflicts is not None else np.nan,
            "scores on one another's task (the lower)": min(alone[one][other], alone[other][one]),
            "alignment of gradients at the base": aligned(one, other, 0.0),
            "alignment of gradients at half of each": aligned(one, other, 0.5),
            f"half of each on {FEW} items": statistics.fmean(scores({one: 0.5, other: 0.5}, own, few)),
        }
        for name, value in found.items():
            signals.setdefault(name, []).append(float(value))
    evaluator.close()
    print(f"\n## {bed}: {len(told)} pairs\n\n| signal | rank correlation |\n| --- | --- |")
    for name, values in signals.items():
        print(f"| {name} | {_correlation(values, told)} |")
    _print_ancestry(weights)


def _correlation(values: Sequence[float], told: Sequence[float]) -> str:
    """With an interval over pairs, by bootstrap."""
    both, generator = np.array([values, told]), np.random.default_rng(0)
    drawn = (both[:, generator.integers(0, len(told), len(told))] for _ in range(DRAWS))
    low, high = np.nanpercentile([spearmanr(*part).statistic for part in drawn if len(set(part[0])) > 1], [2.5, 97.5])
    return f"{spearmanr(*both).statistic:.2f} [{low:.2f}, {high:.2f}]"


def _print_ancestry(weights: Comparison) -> None:
    found: dict[bool, list[str]] = {True: [], False: []}
    count = len(weights.labels)
    for size in range(3, count + 1):
        for models in itertools.combinations(range(count), size):
            part = weights.differences.of(models)
            base = find_base([weights.labels[k] for k in models], part, [()] * size).base
            found[0 in models].append("none" if base is None else "right" if models[base] == 0 else "wrong")
    for has_base, verdicts in found.items():
        counts = ", ".join(f"{name} in {verdicts.count(name)}" for name in ("right", "wrong", "none"))
        print(f"\nThe base of {len(verdicts)} sets {'with' if has_base else 'without'} it: {counts}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("beds", nargs="+", choices=list(BEDS))
    for bed in parser.parse_args().beds:
        measure(bed)


if __name__ == "__main__":
    main()
