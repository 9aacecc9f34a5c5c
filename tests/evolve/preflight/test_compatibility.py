"""What is allowed in a search, and a person is warned of."""

from __future__ import annotations

import re

import pytest

from evolve.preflight.compatibility import FEW_ITEMS, few_items
from evolve.scoring import Split


def of(search: int, held_out: int) -> dict[str, Split]:
    return {"words": Split(tuple(range(search)), tuple(range(search, search + held_out)))}


@pytest.mark.parametrize(
    ("search", "held_out", "said"),
    [
        (4, 16, "words has 4 search and 16 held-out items: .*, here 0.50 and 0.25,"),
        (4, 4, "words has 4 search and 4 held-out items: .*, here 0.50,"),
        (100, 16, "words has 16 held-out items: .*, here 0.25,"),
        (16, 0, "words has 16 search items: .*, here 0.25,"),
    ],
)
def test_few_items_are_told_with_the_differences_that_are_chance(search: int, held_out: int, said: str) -> None:
    (line,) = few_items(of(search, held_out))
    assert re.match(said, line)


@pytest.mark.parametrize("held_out", [0, FEW_ITEMS])
def test_enough_items_and_none_held_out_are_no_matter(held_out: int) -> None:
    assert not list(few_items(of(FEW_ITEMS, held_out)))
