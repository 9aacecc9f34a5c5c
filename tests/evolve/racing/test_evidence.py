"""Laws of the evidence: exact expectations over all orders of a few items, by enumeration in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.racing.evidence import Evidence
from evolve.racing.item_order import ItemOrder

ITEMS = 5
scores_of_items = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=ITEMS, max_size=ITEMS).map(np.array)
positive = st.lists(st.floats(0.1, 1.0), min_size=ITEMS, max_size=ITEMS).map(np.array)


def orders(shares: np.ndarray, weights: np.ndarray):
    """Every order of the items with its probability when they are drawn one by one by weight."""
    for permutation in itertools.permutations(range(len(shares))):
        items = np.array(permutation)
        drawn = weights[items]
        remaining = np.cumsum(drawn[::-1])[::-1]
        yield (
            ItemOrder(items, shares[items], drawn, remaining, np.full(len(items), 0.4)),
            float(np.prod(drawn / remaining)),
        )


def watched(order: ItemOrder, scores: np.ndarray, guesses: np.ndarray, looks: tuple[int, ...], tolerance: float):
    """Evidence on two candidates after each look; the guesses on what comes are half what was seen last."""
    evidence = Evidence(order, 2, tolerance)
    drawn, start = scores[:, order.items], 0
    for end in looks:
        predictions = guesses[:, order.items]
        if start:
            predictions = (predictions + drawn[:, [start - 1]]) / 2
        evidence.observe(np.arange(2), start, drawn[:, :end], predictions)
        start = end
        yield evidence


@settings(max_examples=25, deadline=None)
@given(scores_of_items, scores_of_items, scores_of_items, scores_of_items, positive, positive)
def test_the_capital_of_a_true_hypothesis_does_not_grow_on_average(first, second, guess, other, shares, weights):
    """At the edge of the hypothesis it is a martingale: its expectation is 1 to the last digit, at every look."""
    shares = shares / shares.sum()
    difference = float(shares @ (first - second))
    expected = np.zeros(3)
    for order, chance in orders(shares, weights):
        steps = watched(order, np.stack([first, second]), np.stack([guess, other]), (1, 3, 4), -difference)
        expected += chance * np.array([np.exp(evidence.log_e_values()[0, 1]) for evidence in steps])
    assert expected == pytest.approx(np.ones(3), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(scores_of_items, scores_of_items, positive, positive)
def test_estimates_are_unbiased_whatever_is_predicted_and_however_thinly_items_are_drawn(
    scores, guess, shares, weights
):
    shares = shares / shares.sum()
    expected = np.zeros(3)
    for order, chance in orders(shares, weights):
        steps = watched(order, np.stack([scores, scores]), np.stack([guess, 1 - guess]), (1, 2, 4), 0.0)
        expected += chance * np.array([evidence.estimates()[0] for evidence in steps])
    assert expected == pytest.approx(np.full(3, shares @ scores), abs=1e-9)


def test_a_difference_that_was_predicted_makes_an_estimate_exact_at_once():
    shares = np.full(ITEMS, 1 / ITEMS)
    scores = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0.0]])
    order = ItemOrder.draw(shares, np.full(ITEMS, 0.4), seed=0)
    evidence = Evidence(order, 2, 0.0)
    drawn = scores[:, order.items]
    evidence.observe(np.arange(2), 0, drawn[:, :1], drawn)
    assert evidence.estimates() == pytest.approx(scores @ shares)


def test_evidence_of_a_clear_difference_grows_and_the_other_way_round_it_shrinks():
    generator = np.random.default_rng(0)
    scores = (generator.random((2, 400)) < [[0.8], [0.4]]).astype(float)
    order = ItemOrder.draw(np.full(400, 1 / 400), np.full(400, 0.5), seed=0)
    evidence = Evidence(order, 2, 0.0)
    evidence.observe(np.arange(2), 0, scores[:, order.items[:100]], np.full((2, 400), 0.5))
    assert evidence.log_e_values()[0, 1] > np.log(100) > 0 > evidence.log_e_values()[1, 0]


def test_a_candidate_that_is_not_looked_at_keeps_its_evidence():
    order = ItemOrder.draw(np.full(40, 1 / 40), np.full(40, 0.5), seed=0)
    scores = (np.random.default_rng(1).random((3, 40)) < [[0.9], [0.5], [0.1]]).astype(float)
    evidence = Evidence(order, 3, 0.0)
    evidence.observe(np.arange(3), 0, scores[:, :10], np.full((3, 40), 0.5))
    before = evidence.log_e_values()
    evidence.observe(np.array([0, 1]), 10, scores[:2, :20], np.full((2, 40), 0.5))
    changed = before != evidence.log_e_values()
    assert changed[0, 1]
    assert changed[1, 0]
    assert changed.sum() == 2
