"""Where the scores of the two backends differ: the demo zoo's models and their uniform merge, item by item.

    .venv-vllm/bin/python benchmarks/backends.py [--items 150] [--threads 2] [--dtype float32]

Needs an environment with vLLM, such as `make test-vllm` makes. Both score the same items of the zoo's tasks.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

from evolve.config.machines import BackendConfig
from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.scoring import LmEvalTask
from evolve.trials.trial import Evaluation

ROOT = Path(__file__).resolve().parent.parent
ZOO = "configs/demo_zoo"
SKILLS = ("sorting", "reversal", "shift", "swapping")
MODELS = tuple(f"{ZOO}/{name}" for name in ("base", *SKILLS))
TASKS = tuple(f"demo_{name}" for name in SKILLS)
UNIFORM = "uniform merge"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    found = {
        name: score_all(BackendConfig.model_validate({"name": name, "dtype": arguments.dtype}), arguments)
        for name in ("hf", "vllm")
    }
    print("| model | task | hf | vllm | difference | items that differ |\n| --- | --- | --- | --- | --- | --- |")
    for model in (*MODELS, UNIFORM):
        ours, theirs = found["hf"][model], found["vllm"][model]
        for task in TASKS:
            hf, vllm = ours.scores[task], theirs.scores[task]
            differing = [item for item in hf if hf[item] != vllm[item]]
            means = [sum(map(float, scores.values())) / len(scores) for scores in (hf, vllm)]
            print(
                f"| {Path(model).name} | {task} | {means[0]:.4f} | {means[1]:.4f} | {means[1] - means[0]:+.4f} "
                f"| {len(differing)} of {len(hf)} |"
            )
    for name, evaluations in found.items():
        # The first pays for the start of the engine, and with vllm for the probe.
        later = list(evaluations.values())[1:]
        print(
            f"{name}: {sum(e.total_seconds for e in later) / len(later):.2f} s a model, of it "
            f"{sum(e.forward_seconds for e in later) / len(later):.2f} s in the engine and "
            f"{sum(e.merge_seconds for e in later) / len(later):.2f} s merging and handing over; "
            f"the first {evaluations[MODELS[0]].total_seconds:.1f} s"
        )


def score_all(backend: BackendConfig, arguments: argparse.Namespace) -> dict[str, Evaluation]:
    """Every model on every task with one backend."""
    worker = Worker(
        WorkerSettings(
            models=MODELS,
            relative_to=str(ROOT),
            tokenizer_model=MODELS[0],
            tasks=tuple(LmEvalTask(name=task) for task in TASKS),
            task_search_path=(),
            seed=0,
            backend=backend,
            threads=arguments.threads,
        )
    )
    items = {task: tuple(range(arguments.items)) for task in TASKS}
    recipes = {model: {"merge_method": "passthrough", "models": [{"model": model}]} for model in MODELS}
    experts = [{"model": model, "parameters": {"weight": 1.0}} for model in MODELS[1:]]
    recipes[UNIFORM] = {"merge_method": "linear", "models": experts}
    results = {}
    for number, (model, recipe) in enumerate(recipes.items()):
        results[model] = worker.evaluate(Request(number, {**recipe, "dtype": "bfloat16"}, items))
        if results[model].failure is not None:
            raise SystemExit(f"{backend.name}: {model}: {results[model].failure}")
    worker.close()
    return results


if __name__ == "__main__":
    main()
