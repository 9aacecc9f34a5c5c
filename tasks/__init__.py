"""What a candidate is scored on. Imports neither `evolve` nor `merge_core`.

Importing this package imports neither torch nor lm_eval; the model backend is `tasks.hf_backend.HFBackend`.
"""

from tasks.aggregate import ObjectiveTerm, PairedDifference, objective, oriented, paired_difference
from tasks.errors import ScoringError, TaskError
from tasks.lm_eval_scorer import TaskDescription, describe_tasks, is_benchmark_test
from tasks.load_scorers import load_scorers
from tasks.scorer import Scorer, TaskScore
from tasks.splits import Split, split_items
from tasks.task_config import Direction, LmEvalTask, TaskConfig
from tasks.task_kinds import KINDS, AnyTask, parse_task

__all__ = [
    "KINDS",
    "AnyTask",
    "Direction",
    "LmEvalTask",
    "ObjectiveTerm",
    "PairedDifference",
    "Scorer",
    "ScoringError",
    "Split",
    "TaskConfig",
    "TaskDescription",
    "TaskError",
    "TaskScore",
    "describe_tasks",
    "is_benchmark_test",
    "load_scorers",
    "objective",
    "oriented",
    "paired_difference",
    "parse_task",
    "split_items",
]
