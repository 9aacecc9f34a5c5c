"""lm-eval's tasks, prompts, filters and metrics; when they run, and on which items, is ours.

The home of `lm_eval`: nothing outside this package imports it, and this package does so only when a task is
loaded, because the import takes seconds.
"""

from __future__ import annotations

from evolve.scoring.scorers.lm_eval.config import LmEvalTask
from evolve.scoring.scorers.lm_eval.load import load_lm_eval_scorers
from evolve.scoring.scorers.lm_eval.scorer import LmEvalScorer, every_metric, is_benchmark_test
from evolve.scoring.scorers.registry import TaskKind, register

__all__ = [
    "LmEvalScorer",
    "LmEvalTask",
    "every_metric",
    "is_benchmark_test",
    "load_lm_eval_scorers",
]

register(
    TaskKind(
        "name",
        LmEvalTask,
        lambda configs, paths, seed: load_lm_eval_scorers(configs, paths.search_paths, seed),
    )
)
