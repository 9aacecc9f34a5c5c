"""The stages of a run that keep evaluations or gradients beside the results of trials."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A stage whose evaluations are not the results of trials, or not yet."""

    REFERENCES = "reference"  # whose parents set the scale: recorded when all of them are scored
    RACE = "race"  # rounds of a race that is not over
    LOOK = "look"  # at a point of the gradient start, on some of the items
    VALIDATION = "validation"  # on the held-out items
    SIMPLIFICATION = "simplification"  # of shorter forms of the best recipe, numbered by what is asked


class StepsOf(StrEnum):
    """What gradients are kept for."""

    SEARCH = "gradient_step"
    SIMPLIFICATION = "simplification_step"  # at the best recipe, numbered by what is asked
