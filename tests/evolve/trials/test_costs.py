"""Costs of a model, as shares of the best parent's, and the bookkeeping of items that they are measured with."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.trials.costs import Cost, CostTerms
from evolve.trials.trial import Evaluation

POSITIVE = st.floats(0.01, 1e6)


def asked(items, tokens=0, **more):
    return Evaluation(
        0,
        scores={"task": dict.fromkeys(items, 1.0)},
        answer_counts={"task": len(items)},
        answer_tokens={"task": tokens},
        **more,
    )


@given(POSITIVE, POSITIVE, st.floats(0, 10))
def test_the_penalty_is_nothing_at_the_best_parents_cost_the_weight_at_twice_it_and_linear(reference, cost, weight):
    terms = CostTerms({Cost.LAYERS: weight}, {Cost.LAYERS: reference})
    assert terms.penalty({Cost.LAYERS: reference}) == 0
    assert terms.penalty({Cost.LAYERS: 2 * reference}) == pytest.approx(weight)
    exact = Fraction(weight) * (Fraction(cost) / Fraction(reference) - 1)
    assert terms.penalty({Cost.LAYERS: cost}) == pytest.approx(float(exact), rel=1e-12, abs=1e-9 * (1 + weight))


def test_without_weights_nothing_is_taken_though_nothing_is_known_of_the_parents():
    terms = CostTerms({Cost.LAYERS: 0.0})
    assert terms.penalty({Cost.LAYERS: 7}) == 0
    assert not terms.counts


def test_answers_are_averaged_within_tasks_and_then_over_them():
    evaluation = Evaluation(0, answer_counts={"a": 4, "b": 1}, answer_tokens={"a": 8, "b": 10}, parameters=50, layers=3)
    measured = CostTerms(dict.fromkeys(Cost, 1.0)).measured(evaluation)
    assert measured == {Cost.ANSWER_TOKENS: (2 + 10) / 2, Cost.PARAMETERS: 50, Cost.LAYERS: 3}


ITEMS = st.sets(st.integers(0, 30), min_size=1, max_size=8)


@given(ITEMS, ITEMS)
def test_an_evaluation_completed_by_a_look_counts_every_item_and_every_token_once(own, looked):
    rest = own - looked
    found = asked(rest, tokens=3 * len(rest), layers=2).completed(asked(looked, tokens=3 * len(looked)))
    assert set(found.scores["task"]) == own | looked
    assert found.new_items == len(rest)
    assert found.answer_tokens["task"] == 3 * found.answer_counts["task"] == 3 * len(own | looked)
    assert found.layers == 2


@given(ITEMS, ITEMS)
def test_what_saw_the_looked_at_items_itself_is_not_completed(own, looked):
    whole = asked(own | looked, tokens=5)
    assert whole.completed(asked(looked, tokens=5)) is whole


@given(ITEMS)
def test_items_stay_counted_when_the_scores_turn_out_to_be_none_and_never_when_they_are_repeated(items):
    assert asked(items).failed("not a number").new_items == len(items)
    assert asked(items).repeated(3).new_items == 0
    assert asked(items).repeated(3).failed("not a number").new_items == 0
