"""What the Hugging Face Hub reads of a merged model: its scores in the model-index format, and its licence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from evolve.inspection.card_metadata import OTHER, Licence
from evolve.report.score_table import ScoreTable


def hub_metadata(table: ScoreTable, title: str, licences: Mapping[str, Licence | None]) -> dict[str, Any]:
    """Keys of a card's front matter.

    Args:
        table: scores of the best model; those on held-out items where there are any.
        title: the model's name.
        licences: model -> its licence, None where it is not known.
    """
    found: dict[str, Any] = {}
    different = {licence for licence in licences.values() if licence is not None}
    if different and None not in licences.values():
        found |= (different.pop() if len(different) == 1 else Licence(OTHER)).metadata
    held_out = bool(table.best_row.held_out.tasks)
    scores, kind = (table.best_row.held_out, "held-out") if held_out else (table.best_row.search, "search")
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task.name,
            dataset_name=task.name,
            metric_type=task.metric.partition(",")[0],
            metric_name=f"{task.metric}, {scores.items.get(task.name, 0)} {kind} items",
            metric_value=round(scores.tasks[task.name].value, 6),
        )
        for task in table.tasks
        if task.name in scores.tasks
    ]
    return found | ({"model-index": eval_results_to_model_index(title, results)} if results else {})
