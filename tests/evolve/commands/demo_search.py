"""Small files of searches and recipes over models of the demo zoo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ZOO = Path("configs/demo_zoo")  # as the repository sees it, where commands are run
EVERY_TENSOR = {"low": -0.5, "high": 1.5, "layers": "each", "filters": "each_tensor"}


def demo_search(
    path: Path, weight: Any, *, experts: Sequence[str] = ("sorting", "shift"), items: tuple[int, int], **more: Any
) -> Path:
    """Write a file that merges experts with a base, and scores them on the same tasks.

    Args:
        path: of the file.
        weight: of every expert, a number or a gene.
        experts: names of models, and of tasks.
        items: of every task, for the search and held out.
        more: what else stands in the file.
    """
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(ZOO / "base"),
        "models": [{"model": str(ZOO / name), "parameters": {"weight": weight}} for name in experts],
        "dtype": "bfloat16",
    }
    content = {
        "recipe": recipe,
        "tasks": [f"demo_{name}" for name in experts],
        "items": dict(zip(("search", "held_out"), items, strict=True)),
        **more,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def small_search(path: Path) -> Path:
    """Write a file of six candidates, which takes a second or two."""
    return demo_search(
        path,
        {"low": 0.0, "high": 1.0},
        items=(4, 4),
        tasks=["demo_sorting"],
        start="references",
        budget={"evaluations": 6},
        optimizer={"name": "cma", "population_size": 3},
        workers={"count": 1, "cpus": 1},
    )
