"""Which entries of a task vector stay: the rules that the kernels know.

A rule decides every entry from its magnitude, its position and numbers that were found before, so that a merge
is one pass over its sources. None, in place of a rule, keeps all.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from merge_core.kernels.constants import UNBOUNDED


@dataclass(frozen=True, slots=True)
class MagnitudeRange:
    """Magnitudes in a range, whose ends say which of equal magnitudes are in.

    Kept is what is above ``low``, or equal to it and before the position ``low_end``, unless it is above ``high``,
    or equal to it and before ``high_end``. Magnitudes are float32 bits without the sign, which sort as they do.
    """

    low: int
    low_end: int
    high: int = UNBOUNDED
    high_end: int = 0


@dataclass(frozen=True, slots=True)
class RandomSelection:
    """Entries whose random number of 24 bits (`random_numbers.uniform`, times 2²⁴) is below ``limit``."""

    key: int
    limit: int


@dataclass(frozen=True, slots=True)
class Mask:
    """Entries that are not 0 in a flat uint8 tensor."""

    values: Tensor


NOTHING = MagnitudeRange(UNBOUNDED - 1, 0)
"""Drops every entry."""

Selection = MagnitudeRange | RandomSelection | Mask | None
