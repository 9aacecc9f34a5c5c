"""What a candidate is scored on. Imports neither `evolve` nor `merge_core`.

Importing this package imports neither torch nor lm_eval; the model backend is `tasks.hf_backend.HFBackend`.
"""

from __future__ import annotations

import importlib
import pkgutil

from tasks.answer_recorder import AnswerRecorder
from tasks.comparison import PairedDifference, bootstrap_interval, paired_difference
from tasks.errors import ScoringError, TaskError, first_line
from tasks.feasibility import Constraint, ConstraintConfig, load_constraints, rank_value
from tasks.lm_eval_scorer import LmEvalTask, every_metric, is_benchmark_test
from tasks.load_scorers import content_keys, load_scorers, probe_scorers
from tasks.objective import Objective, ObjectiveKind, ObjectiveTerm, Scale, oriented
from tasks.remembered_answers import RememberedAnswers
from tasks.scorer import ItemValue, ScoredItems, Scorer, TaskScore
from tasks.signals import guided_score
from tasks.splits import Split, split_items
from tasks.task_config import Direction, Signal, TaskConfig
from tasks.task_kinds import KINDS, AnyTask, TaskKind, parse_task

__all__ = [
    "KINDS",
    "AnswerRecorder",
    "AnyTask",
    "Constraint",
    "ConstraintConfig",
    "Direction",
    "ItemValue",
    "LmEvalTask",
    "Objective",
    "ObjectiveKind",
    "ObjectiveTerm",
    "PairedDifference",
    "RememberedAnswers",
    "Scale",
    "ScoredItems",
    "Scorer",
    "ScoringError",
    "Signal",
    "Split",
    "TaskConfig",
    "TaskError",
    "TaskKind",
    "TaskScore",
    "bootstrap_interval",
    "content_keys",
    "every_metric",
    "first_line",
    "guided_score",
    "is_benchmark_test",
    "load_constraints",
    "load_scorers",
    "oriented",
    "paired_difference",
    "parse_task",
    "probe_scorers",
    "rank_value",
    "split_items",
]

for _module in pkgutil.iter_modules(__path__):
    if _module.name.endswith("_scorer"):  # a file or a folder for each kind
        importlib.import_module(f"{__name__}.{_module.name}")
