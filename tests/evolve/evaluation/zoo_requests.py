"""What evaluators are asked in tests: settings and recipes of the demo zoo's models."""

from __future__ import annotations

from pathlib import Path

from evolve.config.machines import BackendConfig
from evolve.evaluation.request import Request
from evolve.evaluation.worker import WorkerSettings
from evolve.scoring import LmEvalTask

ROOT = Path(__file__).resolve().parents[3]
ZOO = "configs/demo_zoo"
ITEMS = {"demo_sorting": tuple(range(12))}


def settings(**changes):
    values = {
        "models": (f"{ZOO}/sorting", f"{ZOO}/reversal", f"{ZOO}/base"),
        "relative_to": str(ROOT),
        "tokenizer_model": f"{ZOO}/base",
        "tasks": (LmEvalTask(name="demo_sorting"),),
        "task_search_path": (),
        "seed": 0,
        "backend": BackendConfig(),
        "threads": 1,
    }
    return WorkerSettings(**{**values, **changes})


def recipe(weight=0.3, **extra):
    models = [{"model": f"{ZOO}/{name}", "parameters": {"weight": weight}} for name in ("sorting", "reversal")]
    return {
        "merge_method": "task_arithmetic",
        "base_model": f"{ZOO}/base",
        "models": models,
        "dtype": "bfloat16",
        **extra,
    }


SHALLOW = {
    "merge_method": "passthrough",
    "slices": [{"sources": [{"model": f"{ZOO}/base", "layer_range": [0, 4]}]}],
    "dtype": "bfloat16",
}
REQUESTS = [
    Request(0, recipe(0.3), ITEMS),
    Request(1, recipe(0.3, merge_method="no_such_method"), ITEMS),
    Request(2, SHALLOW, ITEMS),  # a live model of another depth
    Request(3, recipe(0.1), ITEMS),
    Request(4, recipe(float("nan")), ITEMS),
    Request(5, recipe(0.3), ITEMS),
]
