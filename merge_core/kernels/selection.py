"""Which entries of a task vector stay: the rules that the kernels know.

A rule decides every entry from its magnitude, its position and numbers that were found before, so that a merge
is one pass over its sources. None, in place of a rule, keeps all.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from merge_core.kernels.constants import SELECT_ALL, SELECT_RANDOM, SELECT_RANGE, SELECT_RANKED, UNBOUNDED


@dataclass(frozen=True, slots=True)
class AfterEqual:
    """The position after the ``number``-th entry (from 1), from ``start`` on, that is equal to the end of a range.

    For kernels that look it up themselves; it lies within the next ``constants.PART`` entries.
    """

    start: int
    number: int


@dataclass(frozen=True, slots=True)
class MagnitudeRange:
    """Magnitudes in a range, whose ends say which of equal magnitudes are in.

    Kept is what is above ``low``, or equal to it and before the position ``low_end``, unless it is above ``high``,
    or equal to it and before ``high_end``. Magnitudes are float32 bits without the sign, which sort as they do.
    """

    low: int
    low_end: int | AfterEqual
    high: int = UNBOUNDED
    high_end: int | AfterEqual = 0

    @property
    def is_resolved(self) -> bool:
        """Whether both positions are known."""
        return isinstance(self.low_end, int) and isinstance(self.high_end, int)


@dataclass(frozen=True, slots=True)
class RandomSelection:
    """Entries whose draw (`random_numbers.draws`) is below ``limit``."""

    key: int
    limit: int


@dataclass(frozen=True, slots=True)
class RankedSelection:
    """Entries whose draw is below a limit that rises with their rank: ``limit + ⌊slope · rank / 2¹⁶⌋``.

    Ranks are those of magnitudes in rows, smallest first: flat, of any integer dtype. What is added is less than 2¹⁶.
    """

    key: int
    ranks: Tensor
    limit: int
    slope: int


NOTHING = MagnitudeRange(UNBOUNDED - 1, 0)
"""Drops every entry."""

Selection = MagnitudeRange | RandomSelection | RankedSelection | None


@dataclass(frozen=True, slots=True)
class Move:
    """One term of a sum, and what it becomes: another selection of its source, another factor, another weight."""

    term: int
    rule: Selection
    factor: float
    weight: float


RULE_LENGTH = 7
"""Numbers of a rule in the table that compiled kernels read."""

COLUMNS = 2 + RULE_LENGTH
"""Of the table that kernels on a GPU read: address, dtype code, and the rule."""


def rule_row(rule: Selection, *, looks_up: bool = False) -> tuple[int, ...]:
    """A rule as numbers: its kind, and what the kernels want to know of that kind.

    Args:
        rule: what is kept.
        looks_up: whether they look up positions themselves: where the search for one begins stands in its place then,
            and at the end of the row which of the entries it is, 0 for a position.

    Raises:
        TypeError: a position that is to be looked up, by kernels that do not.
    """
    if isinstance(rule, MagnitudeRange):
        ends = [_end(end) if looks_up else (resolved(end), 0) for end in (rule.low_end, rule.high_end)]
        (low_end, low_number), (high_end, high_number) = ends
        return SELECT_RANGE, rule.low, low_end, rule.high, high_end, low_number, high_number
    if isinstance(rule, RandomSelection):
        return SELECT_RANDOM, rule.key & 0xFFFFFFFF, rule.key >> 32, rule.limit, 0, 0, 0
    if isinstance(rule, RankedSelection):
        low, high = rule.key & 0xFFFFFFFF, rule.key >> 32
        return SELECT_RANKED, low, high, rule.limit, rule.slope, rule.ranks.data_ptr(), rule.ranks.element_size()
    return SELECT_ALL, 0, 0, 0, 0, 0, 0


def resolved(position: int | AfterEqual) -> int:
    """A position that is known.

    Raises:
        TypeError: it is not; who gives such rules must know kernels that look it up.
    """
    if isinstance(position, AfterEqual):
        raise TypeError(f"{position} is not looked up here")
    return position


def _end(position: int | AfterEqual) -> tuple[int, int]:
    """A position, or where the search for it begins; and the number that is searched for, 0 for none."""
    return (position.start, position.number) if isinstance(position, AfterEqual) else (position, 0)
