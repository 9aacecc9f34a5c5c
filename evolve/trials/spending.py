"""What a search has cost so far, in item evaluations, and where they went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum

from evolve.trials.journal import Journal, Stage
from evolve.trials.step import FORWARD_AND_BACKWARD, Step
from evolve.trials.trial import Evaluation, Trial


class Purpose(StrEnum):
    """What item evaluations are spent on; the values are those of reports."""

    REFERENCES = "parents and uniform merge"
    STEPS = "steps of the gradient"
    LOOKS = "looks at references, starts and steps"
    CANDIDATES = "candidates"
    HELD_OUT = "held-out items"


Spending = Mapping[Purpose, int]
"""Purpose -> item evaluations: an item scored is one, an item of a step counts as three."""


def purpose_of(trial: Trial) -> Purpose:
    """What a trial's item evaluations are spent on."""
    return Purpose.REFERENCES if trial.is_reference else Purpose.CANDIDATES


def spending(
    trials: Iterable[Trial], looks: Iterable[Evaluation], steps: Iterable[Step], held_out: Iterable[Evaluation] = ()
) -> Spending:
    """Count what a journal holds; what was scored once and used twice counts once."""
    found = dict.fromkeys(Purpose, 0)
    for trial in trials:
        found[purpose_of(trial)] += trial.measured.new_items
    found[Purpose.LOOKS] = sum(look.new_items for look in looks)
    found[Purpose.STEPS] = FORWARD_AND_BACKWARD * sum(step.items for step in steps)
    found[Purpose.HELD_OUT] = sum(evaluation.new_items for evaluation in held_out)
    return found


def spending_of(journal: Journal, trials: Iterable[Trial] | None = None) -> Spending:
    """What was spent on all that a journal holds, held-out items and what is not recorded yet included.

    Args:
        journal: it.
        trials: of it, where they are read already.
    """
    unrecorded = {**journal.kept(Stage.REFERENCES), **journal.kept(Stage.RACE)}
    counted = (
        trial if trial.evaluation is not None else replace(trial, evaluation=unrecorded.get(trial.number))
        for trial in (journal if trials is None else trials)
    )
    kept = {stage: journal.kept(stage).values() for stage in (Stage.LOOK, Stage.VALIDATION)}
    return spending(counted, kept[Stage.LOOK], journal.steps().values(), kept[Stage.VALIDATION])


def of_the_search(found: Spending) -> int:
    """Item evaluations that a budget bounds: all but those on held-out items."""
    return sum(count for purpose, count in found.items() if purpose is not Purpose.HELD_OUT)
