"""What a search maximises, from its configuration and its tasks."""

from __future__ import annotations

from collections.abc import Sequence

from evolve.config import SearchConfig
from tasks import Objective, ObjectiveTerm, Scorer


def objective_of(scorers: Sequence[Scorer], config: SearchConfig | None = None) -> Objective:
    """What the tasks' scores become; without a configuration, their plain mean."""
    weights = {task.label: task.weight for task in config.tasks} if config is not None else {}
    return Objective(
        {scorer.name: ObjectiveTerm(weights.get(scorer.name, 1.0), scorer.direction) for scorer in scorers}
    )
