"""A budget of item evaluations, and what still fits into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass
class ItemBudget:
    """Pays for what fits, and for nothing in part.

    Attributes:
        limit: item evaluations of the search; None where they are not bounded.
        reserved: how many of them are to be left for something else.
    """

    limit: int | None
    reserved: int = 0

    def affords(self, items: int, spent: int) -> bool:
        """Whether so many more fit, after so many were spent."""
        return self.limit is None or spent + items + self.reserved <= self.limit

    def room(self, most: Sequence[int], spent: int) -> int:
        """How many trials fit, the first of some.

        Args:
            most: the item evaluations that each takes at most.
            spent: before them.
        """
        return sum(self.affords(together, spent) for together in accumulate(most))
