"""Parameters that methods of several families take."""

from __future__ import annotations

from merge_core.methods.method import REQUIRED, Parameter, SearchRange

WEIGHT = Parameter("weight", "number", "model", REQUIRED, SearchRange(0.0, 1.0), "the model's share")
INT8_MASK = Parameter("int8_mask", "flag", "global", False, None, "accepted, and without effect on the result")

EACH_EXPERT = Parameter(
    "each_expert", "flag", "global", False, None, "merge the experts of a stack one by one, whatever the method"
)
"""That every method takes: it says what is a tensor."""


def normalize_parameter(default: bool) -> Parameter:
    """Whether the result is divided by the sum of the weights."""
    return Parameter("normalize", "flag", "global", default, None, "divide by the sum of the weights")
