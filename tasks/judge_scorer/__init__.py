"""A judge model behind an OpenAI-compatible endpoint marks what the candidate answers."""

from __future__ import annotations

from tasks.judge_scorer.config import JudgeTask
from tasks.judge_scorer.scorer import JudgeScorer, load_judge_scorer
from tasks.task_kinds import TaskKind, one_by_one, register

__all__ = ["JudgeScorer", "JudgeTask", "load_judge_scorer"]

register(TaskKind("judge", JudgeTask, one_by_one(lambda config, paths, seed: load_judge_scorer(config, paths))))
