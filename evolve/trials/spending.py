"""What a search has cost so far, in item evaluations, and where they went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from evolve.trials.step import FORWARD_AND_BACKWARD, Step
from evolve.trials.trial import Evaluation, Trial


class Purpose(StrEnum):
    """What item evaluations are spent on; the values are those of reports."""

    REFERENCES = "parents and uniform merge"
    STEPS = "steps of the gradient"
    LOOKS = "looks at references, starts and steps"
    CANDIDATES = "candidates"
    HELD_OUT = "held-out items"
    SIMPLIFICATION = "shorter recipes"


Spending = Mapping[Purpose, int]
"""Purpose -> item evaluations: an item scored is one, an item of a step counts as three."""


def purpose_of(trial: Trial) -> Purpose:
    """What a trial's item evaluations are spent on."""
    return Purpose.REFERENCES if trial.is_reference else Purpose.CANDIDATES


def opening_spending(looks: Iterable[Evaluation], steps: Iterable[Step]) -> Spending:
    """What went into what comes before the candidates."""
    return {
        Purpose.LOOKS: sum(look.new_items for look in looks),
        Purpose.STEPS: FORWARD_AND_BACKWARD * sum(step.items for step in steps),
    }


def of_the_search(found: Spending) -> int:
    """Item evaluations that a budget bounds: those that the search steers by."""
    after = Purpose.HELD_OUT, Purpose.SIMPLIFICATION
    return sum(count for purpose, count in found.items() if purpose not in after)
