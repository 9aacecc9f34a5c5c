"""Items that never run out: problems that PyPI's `reasoning-gym` makes from a seed, each with a verifier.

Stojanovski et al., "Reasoning Gym: reasoning environments for reinforcement learning with verifiable rewards",
arXiv 2505.24760. An item's number is the seed that it is made from, so that what a run records names its problems.
"""

from __future__ import annotations

from evolve.scoring.scorers.reasoning_gym.config import ReasoningGymTask
from evolve.scoring.scorers.reasoning_gym.scorer import ReasoningGymScorer, load_reasoning_gym_scorer
from evolve.scoring.scorers.registry import TaskKind, one_by_one, register

__all__ = ["ReasoningGymScorer", "ReasoningGymTask", "load_reasoning_gym_scorer"]

register(
    TaskKind(
        "reasoning_gym",
        ReasoningGymTask,
        one_by_one(lambda config, paths, seed: load_reasoning_gym_scorer(config, seed)),
    )
)
