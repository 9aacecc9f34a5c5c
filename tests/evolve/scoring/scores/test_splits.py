"""Splitting items between the search and the finalists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.scoring import TaskError, split_items


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=60), st.data(), st.integers(0, 2**32))
def test_the_two_sides_are_disjoint_and_as_large_as_asked(items: set[int], data: st.DataObject, seed: int) -> None:
    held_out = data.draw(st.integers(0, len(items) - 1))
    search = data.draw(st.integers(1, len(items) - held_out))
    split = split_items(items, search, held_out, seed)
    assert len(split.search) == search
    assert len(split.held_out) == held_out
    assert not set(split.search) & set(split.held_out)
    assert set(split.search) | set(split.held_out) <= items


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    items = list(range(100))
    assert split_items(items, 20, 20, 1) == split_items(reversed(items), 20, 20, 1)
    assert split_items(items, 20, 20, 1) != split_items(items, 20, 20, 2)
    assert split_items(items, 20, 20, 1).search != tuple(range(20))


def test_the_held_out_items_stay_when_the_search_gets_more() -> None:
    few, many = split_items(range(100), 10, 30, 5), split_items(range(100), 60, 30, 5)
    assert few.held_out == many.held_out
    assert set(few.search) <= set(many.search)


def test_everything_that_is_not_held_out_is_searched_by_default() -> None:
    split = split_items(range(10), None, 3, 0)
    assert sorted(split.search + split.held_out) == list(range(10))
    assert split_items(range(10), None, None, 0).search == tuple(range(10))


@pytest.mark.parametrize(("search", "held_out"), [(8, 3), (None, 10), (11, None)])
def test_too_few_items_is_an_error_that_says_how_many_there_are(search: int | None, held_out: int | None) -> None:
    with pytest.raises(TaskError, match="has 10 items"):
        split_items(range(10), search, held_out, 0)


def test_an_empty_search_is_refused() -> None:
    with pytest.raises(TaskError, match="search >= 1"):
        split_items(range(10), 0, 3, 0)
