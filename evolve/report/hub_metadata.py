"""What the Hugging Face Hub reads of how good a merged model is: its scores in the model-index format."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from evolve.report.score_table import ScoreTable


def hub_metadata(table: ScoreTable, title: str) -> dict[str, Any]:
    """Keys of a card's front matter.

    Args:
        table: scores of the best model; those on held-out items where there are any.
        title: the model's name.
    """
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
    return {"model-index": eval_results_to_model_index(title, results)} if results else {}
