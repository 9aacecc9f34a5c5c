"""The backend's options on a device: does each run, what does a candidate take, which items score as on the CPU?

    python benchmarks/gpu/options.py [--device cuda] [--items 150]

The same three recipes on the demo zoo's tasks for each. Seconds are those of the last candidate; "equal" is the part
of all items whose score is that of the CPU in float32.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

from evolve.config.machines import BackendConfig
from evolve.evaluation.request import Request
from evolve.evaluation.worker import Worker, WorkerSettings
from evolve.scoring import LmEvalTask

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "configs" / "demo_zoo"
EXPERTS = ("sorting", "reversal", "shift", "swapping")
TASKS = tuple(f"demo_{name}" for name in EXPERTS)
CANDIDATES = 3


def main() -> None:
    """Prints the table; exits with 1 when an option does not run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--items", type=int, default=150)
    options = parser.parse_args()
    wanted: list[dict[str, Any]] = [
        {"device": "cpu", "dtype": "float32"},
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        {"dtype": "float32", "quantization": "8bit"},
        {"dtype": "bfloat16", "quantization": "fp8"},
        {"dtype": "bfloat16", "quantization": "4bit"},
        {"dtype": "bfloat16", "compile": True},
        {"dtype": "bfloat16", "attention": "eager"},
        {"dtype": "bfloat16", "device_map": "auto"},
        {"dtype": "bfloat16", "max_batch_tokens": 512},
    ]
    print(f"{'backend':<44}{'start s':>9}{'candidate s':>13}{'merge':>8}{'forward':>9}{'equal':>9}")
    expected: list[float] = []
    failed = False
    for settings in wanted:
        settings = {"device": options.device, **settings}
        title = " ".join(f"{value if value is not True else name}" for name, value in settings.items())
        started = time.perf_counter()
        try:
            rows = evaluations(settings, options.items)
        except Exception as error:  # the table says which options do not run
            failed = True
            print(f"{title:<44}FAILED: {type(error).__name__}: {str(error).splitlines()[0][:120]}", flush=True)
            continue
        scores = [score for row in rows for name in TASKS for score in row.scores[name].values()]
        expected = expected or scores
        same = sum(one == two for one, two in zip(scores, expected, strict=True)) / len(expected)
        last = rows[-1]
        start = time.perf_counter() - started - sum(row.total_seconds for row in rows[1:])
        print(
            f"{title:<44}{start:>9.1f}{last.total_seconds:>13.3f}{last.merge_seconds / last.total_seconds:>8.0%}"
            f"{last.forward_seconds / last.total_seconds:>9.0%}{same:>9.1%}",
            flush=True,
        )
    sys.exit(int(failed))


def evaluations(settings: dict[str, Any], items: int) -> list[Any]:
    """Some candidates, one after the other.

    Raises:
        RuntimeError: one of them failed.
    """
    worker = Worker(
        WorkerSettings(
            models=tuple(str(ZOO / name) for name in ("base", *EXPERTS)),
            relative_to=str(ZOO),
            tokenizer_model=str(ZOO / "base"),
            tasks=tuple(LmEvalTask(name=name) for name in TASKS),
            task_search_path=(),
            seed=0,
            backend=BackendConfig.model_validate(settings),
            threads=None,
        )
    )
    rows = []
    for number in range(CANDIDATES):
        row = worker.evaluate(Request(number, recipe(number), dict.fromkeys(TASKS, tuple(range(items)))))
        if row.failure:
            raise RuntimeError(row.failure)
        rows.append(row)
    worker.close()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows


def recipe(number: int) -> dict[str, Any]:
    """A candidate between the experts."""
    generator = random.Random(number)
    models = [
        {"model": str(ZOO / name), "parameters": {"weight": generator.uniform(0.2, 0.6), "density": 0.6}}
        for name in EXPERTS
    ]
    return {"merge_method": "ties", "base_model": str(ZOO / "base"), "models": models, "dtype": "bfloat16"}


if __name__ == "__main__":
    main()
