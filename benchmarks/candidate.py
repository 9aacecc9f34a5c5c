"""One candidate, merged and scored: ours, mergekit-evolve's, and the model's forward alone.

    MERGEKIT_PYTHON=/path/to/python python benchmarks/candidate.py [--candidates 8] [--items 200] [--threads 2]

Ours runs in this process, as `evolve run` does. mergekit's own functions (`mergekit.evo.helpers`) run in the
environment of MERGEKIT_PYTHON (mergekit 0.1.5 with cma, ray and lm_eval), without Ray around them, which is to its
advantage. Both score the same items of three of the demo zoo's tasks, in the same number of threads, in turn.
The bound is the time inside the model's forward.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT / "configs" / "demo_zoo"
EXPERTS = ("sorting", "reversal", "shift")
TASKS = tuple(f"demo_{name}" for name in EXPERTS)

MERGEKIT = """
import json, os, sys, time, torch
os.environ.setdefault("HF_HUB_OFFLINE", "1")
from mergekit.evo import helpers
from mergekit.evo.config import TaskConfiguration
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition
from mergekit.options import MergeOptions
import lm_eval.tasks
helpers.monkeypatch_lmeval_vllm = lambda: None  # it wants vLLM importable even when it is not used
if not hasattr(torch.cpu, "empty_cache"):
    torch.cpu.empty_cache = lambda: None
request = json.load(sys.stdin)
torch.set_num_threads(request["threads"])
genome = ModelGenome(ModelGenomeDefinition.model_validate(request["genome"]))
manager = lm_eval.tasks.TaskManager(include_path=request["tasks_path"], include_defaults=False)
tasks = [TaskConfiguration(name=name, metric="exact_match,none") for name in request["tasks"]]
shape = genome.initial_genotype().shape
for values in request["genotypes"]:
    started = time.perf_counter()
    path = helpers.merge_model(torch.tensor(values).view(shape), genome, request["storage"], MergeOptions())
    merged = time.perf_counter()
    result = helpers.evaluate_model(
        path, tasks, num_fewshot=None, limit=request["items"], vllm=False, batch_size=request["batch"],
        task_manager=manager, model_kwargs={"device": "cpu"},
    )
    print("CANDIDATE" + json.dumps([merged - started, time.perf_counter() - merged, result["score"]]), flush=True)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    mergekit_python = os.environ.get("MERGEKIT_PYTHON")
    if not mergekit_python:
        sys.exit("MERGEKIT_PYTHON: set it to the Python of an environment with mergekit 0.1.5, cma, ray and lm_eval")
    generator = random.Random(0)
    genotypes = [[generator.random() for _ in range(6 * len(EXPERTS))] for _ in range(options.candidates)]
    ours = run_ours(genotypes, options.items, options.threads)
    mergekit = run_mergekit(mergekit_python, genotypes, options.items, options.threads)
    report(ours, mergekit)


def run_ours(genotypes: list[list[float]], items: int, threads: int) -> list[dict[str, float]]:
    """Seconds per candidate: merge, forward, total."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from evolve.config.machines import BackendConfig
    from evolve.evaluation.request import Request
    from evolve.evaluation.worker import Worker, WorkerSettings
    from evolve.scoring import LmEvalTask

    models = (*(str(ZOO / name) for name in EXPERTS), str(ZOO / "base"))
    worker = Worker(
        WorkerSettings(
            models=models,
            relative_to=str(ROOT),
            tokenizer_model=models[-1],
            tasks=tuple(LmEvalTask(name=name) for name in TASKS),
            task_search_path=(),
            seed=0,
            backend=BackendConfig(),
            threads=threads,
        )
    )
    ids = dict.fromkeys(TASKS, tuple(range(items)))
    worker.evaluate(Request(0, recipe(genotypes[0]), ids))  # builds the live model and the prompts, once per worker
    rows = []
    for genotype in genotypes:
        started = time.perf_counter()
        evaluation = worker.evaluate(Request(0, recipe(genotype), ids))
        if evaluation.failure is not None:
            sys.exit(f"candidate failed: {evaluation.failure}")
        rows.append(
            {
                "merge": evaluation.merge_seconds,
                "forward": evaluation.forward_seconds,
                "total": time.perf_counter() - started,
                "score": sum(sum(values.values()) / len(values) for values in evaluation.scores.values()),
            }
        )
    return rows


def recipe(genotype: list[float]) -> dict[str, Any]:
    """task_arithmetic with a weight per layer and expert: what mergekit's genome of granularity 1 writes."""
    slices = []
    for layer in range(6):
        layer_range = [layer, layer + 1]
        sources: list[dict[str, Any]] = [
            {
                "model": str(ZOO / name),
                "layer_range": layer_range,
                "parameters": {"weight": genotype[layer * len(EXPERTS) + index]},
            }
            for index, name in enumerate(EXPERTS)
        ]
        slices.append({"sources": [*sources, {"model": str(ZOO / "base"), "layer_range": layer_range}]})
    return {
        "merge_method": "task_arithmetic",
        "base_model": str(ZOO / "base"),
        "slices": slices,
        "parameters": {"normalize": False},
        "dtype": "bfloat16",
    }


def run_mergekit(python: str, genotypes: list[list[float]], items: int, threads: int) -> list[dict[str, float]]:
    """Seconds per candidate of mergekit's own merge and evaluation."""
    genome = {
        "models": [str(ZOO / name) for name in EXPERTS],
        "base_model": str(ZOO / "base"),
        "merge_method": "task_arithmetic",
        "layer_granularity": 1,
    }
    with tempfile.TemporaryDirectory() as storage:
        request = {
            "genome": genome,
            "genotypes": genotypes,
            "tasks": TASKS,
            "tasks_path": str(ROOT / "tasks" / "demo"),
            "items": items,
            "threads": threads,
            "batch": 128,
            "storage": storage,
        }
        found = subprocess.run(
            [python, "-c", MERGEKIT],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
            check=False,
        )
    rows = [json.loads(line[9:]) for line in found.stdout.splitlines() if line.startswith("CANDIDATE")]
    if found.returncode or not rows:
        sys.exit(f"mergekit failed:\n{found.stderr[-3000:]}")
    return [
        {"merge": merge, "forward": float("nan"), "total": merge + evaluate, "score": score}
        for merge, evaluate, score in rows
    ]


def report(ours: list[dict[str, float]], mergekit: list[dict[str, float]]) -> None:
    """Medians side by side, and ratios."""
    median = {
        name: {key: statistics.median(row[key] for row in rows) for key in ("merge", "forward", "total", "score")}
        for name, rows in (("ours", ours), ("mergekit", mergekit))
    }
    mine, other = median["ours"], median["mergekit"]
    print(f"{'median of ' + str(len(ours)) + ' candidates':<28}{'ours':>10}{'mergekit':>10}{'ratio':>12}")
    print(f"{'merge, s':<28}{mine['merge']:>10.3f}{other['merge']:>10.3f}{other['merge'] / mine['merge']:>11.1f}x")
    ratio = other["total"] / mine["total"]
    print(f"{'whole candidate, s':<28}{mine['total']:>10.3f}{other['total']:>10.3f}{ratio:>11.1f}x")
    print(f"{'bound: forward alone, s':<28}{mine['forward']:>10.3f}")
    overhead = statistics.median(1 - (row["merge"] + row["forward"]) / row["total"] for row in ours)
    print(f"{'whole / bound':<28}{mine['total'] / mine['forward']:>9.2f}x{other['total'] / mine['forward']:>9.1f}x")
    print(f"{'neither merge nor forward':<28}{overhead:>10.1%}")
    print(f"{'sum of task scores':<28}{mine['score']:>10.4f}{other['score']:>10.4f}")


if __name__ == "__main__":
    main()
