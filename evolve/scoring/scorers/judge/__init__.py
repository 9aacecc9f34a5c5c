"""A judge model behind an OpenAI-compatible endpoint marks what the candidate answers."""

from __future__ import annotations

from evolve.scoring.scorers.judge.config import JudgeTask
from evolve.scoring.scorers.judge.scorer import JudgeScorer, load_judge_scorer
from evolve.scoring.scorers.registry import TaskKind, one_by_one, register

__all__ = ["JudgeScorer", "JudgeTask", "load_judge_scorer"]

register(TaskKind("judge", JudgeTask, one_by_one(lambda config, paths, seed: load_judge_scorer(config, paths))))
