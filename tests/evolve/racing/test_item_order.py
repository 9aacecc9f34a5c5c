"""The order in which items are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from evolve.racing.item_order import ItemOrder, expected_deviations, remaining_variance


def test_an_order_holds_every_item_once_and_is_the_same_for_the_same_seed():
    shares = np.full(20, 1 / 20)
    first, again, other = (ItemOrder.draw(shares, np.linspace(0, 0.5, 20), seed) for seed in (1, 1, 2))
    assert sorted(first.items) == list(range(20))
    assert (first.items == again.items).all()
    assert (first.items != other.items).any()


def test_what_remains_is_the_sum_of_the_weights_not_drawn_yet():
    order = ItemOrder.draw(np.full(9, 1 / 9), np.linspace(0.2, 0.5, 9), seed=0)
    assert order.remaining == pytest.approx([order.weights[start:].sum() for start in range(9)])


def test_items_are_drawn_in_proportion_to_their_weights():
    shares, deviations = np.full(4, 1 / 4), np.array([0.2, 0.2, 0.4, 0.5])
    first = Counter(int(ItemOrder.draw(shares, deviations, seed).items[0]) for seed in range(4000, 8000))
    expected = 4000 * deviations / deviations.sum()
    assert stats.chisquare([first[item] for item in range(4)], expected).pvalue > 1e-3


def test_thin_sampling_is_off_where_all_items_deviate_alike():
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    order = ItemOrder.draw(shares, np.full(4, 0.4), seed=3)
    assert (order.weights == order.shares).all()
    assert remaining_variance(shares, np.full(4, 0.4)) == pytest.approx(1)


def test_thin_sampling_can_be_refused():
    order = ItemOrder.draw(np.full(4, 1 / 4), np.array([0.0, 0.0, 0.5, 0.5]), seed=3, thin=False)
    assert (order.weights == order.shares).all()


def test_an_item_that_nobody_differs_on_is_expected_to_deviate_less_but_not_never():
    known = np.array([[1, 1, 0.0], [1, 0, np.nan], [1, 1, 0.0], [1, 0, 0.0]])
    dead, live, dead_too = expected_deviations(known)
    assert 0 < dead < dead_too < live  # the fewer have seen an item, the less is known of it
    assert live == pytest.approx(0.5)
