"""What a candidate is scored on. Imports neither `merge_core` nor the rest of `evolve`.

Importing this package imports neither torch nor lm_eval; the engines are opened by `evolve.scoring.backends`.
"""

from __future__ import annotations

from evolve.scoring.backends.remembered_answers import RememberedAnswers
from evolve.scoring.content_keys import code_keys, is_installed
from evolve.scoring.errors import ScoringError, TaskError, UnavailableError, first_line
from evolve.scoring.scorer import (
    ItemValue,
    ScoredItems,
    Scorer,
    TaskScore,
    has_answers_written,
    is_mean_of_items,
    runs_user_code,
)
from evolve.scoring.scorers.answer_recorder import AnswerRecorder
from evolve.scoring.scorers.asked_together import KnownAnswers, TellsRequests, ask_together
from evolve.scoring.scorers.feasibility import (
    Constraint,
    ConstraintConfig,
    is_infeasible,
    load_constraints,
    rank_value,
    violation_of_rank,
)
from evolve.scoring.scorers.lm_eval import LmEvalTask, every_metric, is_benchmark_test
from evolve.scoring.scorers.load_scorers import content_keys, load_scorers, probe_scorers, scoring_keys
from evolve.scoring.scorers.registry import KINDS, AnyTask, TaskKind, parse_task
from evolve.scoring.scorers.user_files import task_library
from evolve.scoring.scores.comparison import PairedDifference, bootstrap_interval, paired_difference
from evolve.scoring.scores.objective import Objective, ObjectiveCall, ObjectiveKind, ObjectiveTerm, Scale, oriented
from evolve.scoring.scores.signals import score_with_signal
from evolve.scoring.scores.splits import Split, split_items
from evolve.scoring.task_config import Direction, Signal, TaskConfig

__all__ = [
    "KINDS",
    "AnswerRecorder",
    "AnyTask",
    "Constraint",
    "ConstraintConfig",
    "Direction",
    "ItemValue",
    "KnownAnswers",
    "LmEvalTask",
    "Objective",
    "ObjectiveCall",
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
    "TellsRequests",
    "UnavailableError",
    "ask_together",
    "bootstrap_interval",
    "code_keys",
    "content_keys",
    "every_metric",
    "first_line",
    "has_answers_written",
    "is_benchmark_test",
    "is_infeasible",
    "is_installed",
    "is_mean_of_items",
    "load_constraints",
    "load_scorers",
    "oriented",
    "paired_difference",
    "parse_task",
    "probe_scorers",
    "rank_value",
    "runs_user_code",
    "score_with_signal",
    "scoring_keys",
    "split_items",
    "task_library",
    "violation_of_rank",
]
