"""Which items steer the search and which are kept for the finalists."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from evolve.scoring.errors import TaskError


@dataclass(frozen=True, slots=True)
class Split:
    """Two disjoint sets of item ids, each ascending."""

    search: tuple[int, ...]
    held_out: tuple[int, ...]


def split_items(item_ids: Iterable[int], search: int | None, held_out: int | None, seed: int) -> Split:
    """Draw the items that steer the search and, disjoint from them, those that the finalists are judged on.

    The draw depends on the set of ids and the seed alone. The held-out items are drawn first, so
    searching on more items later never touches what the finalists were judged on.

    Args:
        item_ids: All items of a task.
        search: How many for the search, at least 1; None is all that are left.
        held_out: How many to hold out; None is none.
        seed: Seed of the draw.

    Raises:
        TaskError: There are fewer items than asked for, or none left for the search.
    """
    shuffled = sorted(set(item_ids))
    available = len(shuffled)
    random.Random(seed).shuffle(shuffled)
    held_out = held_out or 0
    if held_out < 0 or (search is not None and search < 1):
        raise TaskError(f"items: expected search >= 1 and held_out >= 0, got search={search}, held_out={held_out}")
    wanted = held_out + (1 if search is None else search)
    if wanted > available:
        raise TaskError(
            f"items: {search or 'at least 1'} for the search and {held_out} held out are asked for, but the "
            f"task has {available} items. Ask for at most {available} in total."
        )
    end = None if search is None else held_out + search
    return Split(tuple(sorted(shuffled[held_out:end])), tuple(sorted(shuffled[:held_out])))
