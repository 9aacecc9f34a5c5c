"""A judge model behind an OpenAI-compatible endpoint marks what the candidate answers."""

from __future__ import annotations

from tasks.judge_scorer.config import JudgeTask
from tasks.judge_scorer.scorer import JudgeScorer, load_judge_scorer

__all__ = ["JudgeScorer", "JudgeTask", "load_judge_scorer"]
