"""Which parents a model beats on the search items."""

from __future__ import annotations

from collections.abc import Sequence

from evolve.report.formatting import single_line
from evolve.trials.trial import Trial


def beaten_parents(trial: Trial, parents: Sequence[Trial]) -> list[str]:
    """Labels of the parents, but itself, with a lower objective."""
    return [parent.label for parent in _others(trial, parents) if (trial.objective or 0.0) > (parent.objective or 0.0)]


def beaten_text(trial: Trial, parents: Sequence[Trial], width: int) -> str:
    """ "all 4", "3 of 4: not reversal"; "3 of 4" where that is longer than `width`, and "-" where there is no other."""
    others, beaten = _others(trial, parents), beaten_parents(trial, parents)
    if not others:
        return "-"
    if len(beaten) == len(others):
        return f"all {len(others)}"
    count = f"{len(beaten)} of {len(others)}"
    unbeaten = [single_line(parent.label).rpartition("/")[2] for parent in others if parent.label not in beaten]
    named = f"{count}: not {', '.join(unbeaten)}"
    return named if beaten and len(named) <= width else count


def _others(trial: Trial, parents: Sequence[Trial]) -> list[Trial]:
    return [parent for parent in parents if parent.objective is not None and parent.number != trial.number]
