"""What became of the variants of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evolve.config.sweep import Variant
from evolve.scoring import Scorer
from evolve.trials.trial import ItemScores


@dataclass(frozen=True)
class VariantResult:
    """One variant, scored.

    Attributes:
        variant: which.
        seed: of its items: only variants of one seed are compared item by item.
        search: contributions of the search items it was scored on.
        held_out: of the held-out items; empty where it did not come so far.
        dropped: whether it was settled to be beaten before all items were scored.
        items: item evaluations that it took.
        seconds: that it took.
        directory: of its run; None of a plain recipe.
        failure: why there is no result.
    """

    variant: Variant
    seed: int
    search: ItemScores = field(default_factory=dict)
    held_out: ItemScores = field(default_factory=dict)
    dropped: bool = False
    items: int = 0
    seconds: float = 0.0
    directory: Path | None = None
    failure: str | None = None


def contributions(scorers: Sequence[Scorer], scores: ItemScores) -> ItemScores:
    """One number per item whose mean is the task's score, of the tasks that were scored."""
    return {scorer.name: scorer.contributions(scores[scorer.name]) for scorer in scorers if scorer.name in scores}
