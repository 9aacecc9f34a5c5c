"""A sweep of searches against the same searches run by hand: processor seconds of both, and their winners.

    python benchmarks/search/sweep_seconds.py
    python benchmarks/search/sweep_seconds.py --race

Six methods and three seeds on the demo zoo, a weight for every expert. By hand is `evolve run` in a process of its own
for each of the 18; the sweep is one `evolve sweep`. What comes to its end in the sweep must end with the recipe that
the run by hand ended with, and the same method must win; else the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ZOO = Path(__file__).resolve().parents[2] / "configs" / "demo_zoo"
EXPERTS = ("sorting", "reversal", "shift", "swapping")
METHODS = ("task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "della")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Search:
    """What one of the searches found.

    Attributes:
        recipe: the best.
        objective: of it, on the held-out items.
        items: item evaluations, those on held-out items included.
    """

    recipe: str
    objective: float
    items: int

    @classmethod
    def of(cls, directory: Path) -> Search | None:
        """What is in the directory of a run; None where the run did not come to its end."""
        summary_path = directory / "run.json"
        if not summary_path.is_file():
            return None
        summary: dict[str, Any] = json.loads(summary_path.read_text(encoding="utf-8"))
        held_out: dict[str, float] = summary["held_out"]
        recipe = (directory / "best_recipe.yml").read_text(encoding="utf-8")
        return cls(recipe, held_out[summary["best_label"]], sum(summary["item_evaluations"].values()))


def search_file(path: Path, budget: int) -> Path:
    """A search of four weights, whose method is the first one."""
    weight = {"low": 0.0, "high": 1.0}
    content = {
        "recipe": {
            "merge_method": METHODS[0],
            "base_model": str(ZOO / "base"),
            "models": [{"model": str(ZOO / name), "parameters": {"weight": weight}} for name in EXPERTS],
            "dtype": "bfloat16",
        },
        "tasks": [f"demo_{name}" for name in EXPERTS],
        "items": {"search": 15, "held_out": 30},  # of each task
        "budget": {"items": budget},
        "workers": {"count": 1, "cpus": 1},
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def processor_seconds(*arguments: str | Path) -> float:
    """What `evolve` takes with these arguments, on all cores together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "evolve.commands.cli", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def winner(found: dict[tuple[str, int], Search]) -> str:
    """The method with the highest mean over seeds, of those that came to their end with all of them."""
    means = {
        method: statistics.fmean(found[method, seed].objective for seed in SEEDS)
        for method in METHODS
        if all((method, seed) in found for seed in SEEDS)
    }
    return max(means, key=lambda method: means[method])


def main() -> None:
    """Both, side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=3000, help="item evaluations of each search")
    parser.add_argument("--race", action="store_true", help="the sweep gives up what is settled to be beaten")
    options = parser.parse_args()
    pairs = [(method, seed) for seed in SEEDS for method in METHODS]
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        search = search_file(directory / "search.yml", options.items)
        by_hand, seconds = dict[tuple[str, int], Search](), dict[tuple[str, int], float]()
        for method, seed in pairs:
            output = directory / "by_hand" / f"{method}-{seed}"
            settings = ("--set", f"recipe.merge_method={method}", "--set", f"seed={seed}", "--output", output)
            seconds[method, seed] = processor_seconds("run", search, *settings)
            if one := Search.of(output):
                by_hand[method, seed] = one
        vary = {"recipe.merge_method": list(METHODS), "seed": list(SEEDS)}
        content = {**yaml.safe_load(search.read_text()), "sweep": {"vary": vary, "race": options.race}}
        sweep = directory / "sweep.yml"
        sweep.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        together = processor_seconds("sweep", sweep, "--output", directory / "swept")
        swept = {
            (method, seed): one
            for method, seed in pairs
            if (one := Search.of(directory / "swept" / f"merge_method={method},seed={seed}"))
        }
    print(f"{'method':16}{'by hand: held out':>20}{'s':>8}   {'in the sweep: held out':>24}{'items':>9}")
    for method in METHODS:
        hand = " ".join(f"{by_hand[method, seed].objective:.3f}" for seed in SEEDS)
        own = " ".join(
            f"{swept[method, seed].objective:.3f}" if (method, seed) in swept else "beaten" for seed in SEEDS
        )
        took = sum(seconds[method, seed] for seed in SEEDS)
        items = sum(swept[method, seed].items for seed in SEEDS if (method, seed) in swept)
        print(f"{method:16}{hand:>20}{took:8.0f}   {own:>24}{items:9,}")
    alone = sum(seconds.values())
    print(f"processor seconds: by hand {alone:.0f}, the sweep {together:.0f}: {together / alone:.2f}")
    print(f"winner: by hand {winner(by_hand)}, in the sweep {winner(swept)}")
    different = [
        f"{method} {seed}" for (method, seed), one in swept.items() if one.recipe != by_hand[method, seed].recipe
    ]
    print(f"recipes that differ: {', '.join(different) or 'none'}")
    if different or winner(by_hand) != winner(swept):
        sys.exit(1)


if __name__ == "__main__":
    main()
