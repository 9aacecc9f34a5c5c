"""Races: who is settled, how often wrongly, and what is never guessed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evolve.racing.race import Race, Side, resolution

ITEMS = 96
SHARES, GROUPS = np.full(ITEMS, 1 / ITEMS), np.repeat([0, 1, 2], ITEMS // 3)
KNOWN = (np.random.default_rng(8).random((5, ITEMS)) < 0.5).astype(float)


def run(scores, *, known=KNOWN, parents=1, confidence=0.9, tolerance=0.0, seed=0, shares=SHARES, thin=True) -> Race:
    """A race to its end."""
    race = Race(
        shares,
        GROUPS,
        known,
        candidates=len(scores),
        parents=parents,
        confidence=confidence,
        tolerance=tolerance,
        seed=seed,
        thin=thin,
    )
    while not race.finished:
        race.observe(scores[np.ix_(race.racing, race.next_items)])
    return race


def narrowly_best(generator: np.random.Generator, candidates: int, disagreement: float) -> np.ndarray:
    """The first is the best by one item, and all others tie: nothing is easier to get wrong."""
    scores = np.tile((generator.random(ITEMS) < 0.5).astype(float), (candidates, 1))
    flips = generator.permutation(ITEMS)[: 2 * max(int(disagreement * ITEMS / 2), 1)]
    for row in range(candidates):
        halves = generator.permutation(flips)
        scores[row, halves[::2]], scores[row, halves[1::2]] = 0.0, 1.0
    wrong = np.flatnonzero(scores[0] == 0)
    scores[0, generator.choice(wrong)] = 1.0
    return scores


adversaries = {
    "nothing known": lambda scores: np.full((2, ITEMS), 0.5),
    "known that mislead": lambda scores: 1 - scores,
    "known that know it all": lambda scores: scores.copy(),
    "all live items look dead": lambda scores: np.where(scores.var(axis=0) > 0, 1.0, np.indices(scores.shape)[0] % 2),
}


@pytest.mark.parametrize("adversary", adversaries)
@pytest.mark.parametrize("disagreement", [0.05, 0.3, 0.9])
def test_what_belongs_above_the_cut_is_dropped_no_more_often_than_stated(adversary, disagreement):
    """One-sided binomial test against 1 - confidence, over draws of the order of one hard set of scores."""
    scores = narrowly_best(np.random.default_rng(int(100 * disagreement)), 4, disagreement)
    known = adversaries[adversary](scores)
    dropped = sum(run(scores, known=known, seed=seed, confidence=0.8).side[0] == Side.BELOW for seed in range(120))
    assert stats.binomtest(dropped, 120, 0.2, alternative="greater").pvalue > 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.5]), st.integers(1, 5), st.booleans())
def test_the_rate_of_wrong_settlements_holds_on_both_sides(seed, spread, parents, thin):
    """Simulated generations, whose candidates are of any distance from one another."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(size=ITEMS)
    skills = generator.normal(scale=3 * spread, size=6)
    scores = (generator.random((6, ITEMS)) < 1 / (1 + np.exp(difficulty - skills[:, None]))).astype(float)
    ranked = np.sort(scores @ SHARES)[::-1]
    wrong = 0
    for order in range(30):
        side = run(scores, parents=parents, confidence=0.8, seed=order, thin=thin).side
        dropped = (side == Side.BELOW) & (scores @ SHARES > ranked[parents] + 1e-9)
        lifted = (side == Side.ABOVE) & (scores @ SHARES < ranked[parents - 1] - 1e-9)
        wrong += (dropped | lifted).any()
    # Of any single candidate it is at most 0.2; of any of six, less than 6 times that, and in truth far less.
    assert stats.binomtest(int(wrong), 30, 0.5, alternative="greater").pvalue > 1e-3


def test_a_tolerance_never_drops_what_is_better_by_more():
    scores = narrowly_best(np.random.default_rng(3), 4, 0.4)
    scores[0, np.flatnonzero(scores[0] == 0)[:6]] = 1.0  # now it is the best by seven items
    races = [run(scores, seed=seed, confidence=0.8, tolerance=6 / ITEMS) for seed in range(120)]
    dropped = sum(race.side[0] == Side.BELOW for race in races)
    assert stats.binomtest(dropped, 120, 0.2, alternative="greater").pvalue > 1e-3


def test_clear_differences_are_settled_after_the_first_rounds():
    generator = np.random.default_rng(1)
    scores = (generator.random((8, ITEMS)) < np.repeat([0.95, 0.1], 4)[:, None]).astype(float)
    race = run(scores, parents=4)
    assert (race.side == np.repeat([Side.ABOVE, Side.BELOW], 4)).all()
    assert race.seen.max() <= ITEMS / 2


def test_equal_candidates_see_all_items_and_are_exact():
    scores = np.tile(KNOWN[0], (4, 1))
    race = run(scores, parents=2)
    assert (race.seen == ITEMS).all()
    assert (race.side == Side.UNDECIDED).all()
    assert race.estimates() == pytest.approx(scores @ SHARES)


def test_all_candidates_see_the_same_items_in_the_same_order():
    generator = np.random.default_rng(2)
    race = Race(SHARES, GROUPS, KNOWN, candidates=3, parents=1, confidence=0.95, tolerance=0.0, seed=4)
    asked: list[int] = []
    while not race.finished:
        asked += race.next_items.tolist()
        race.observe((generator.random((len(race.racing), len(race.next_items))) < 0.5).astype(float))
    assert asked == race.order.items[: len(asked)].tolist()


def test_a_race_is_the_same_again():
    scores = (np.random.default_rng(3).random((6, ITEMS)) < np.linspace(0.2, 0.9, 6)[:, None]).astype(float)
    first, second = run(scores, parents=3), run(scores, parents=3)
    assert (first.seen == second.seen).all()
    assert first.estimates().tolist() == second.estimates().tolist()


def test_a_candidate_that_cannot_be_scored_leaves_the_others_as_they_were():
    scores = (np.random.default_rng(5).random((5, ITEMS)) < [[0.9], [0.8], [0.2], [0.1], [0.0]]).astype(float)
    race = Race(SHARES, GROUPS, KNOWN, candidates=5, parents=2, confidence=0.95, tolerance=0.0, seed=0)
    race.withdraw(4)
    while not race.finished:
        race.observe(scores[np.ix_(race.racing, race.next_items)])
    assert np.isnan(race.estimates()[4])
    assert np.isfinite(race.estimates()[:4]).all()
    assert race.seen[4] == 0


def test_no_more_candidates_than_parents_means_no_cut():
    race = Race(SHARES, GROUPS, KNOWN, candidates=3, parents=2, confidence=0.95, tolerance=0.0, seed=0)
    race.withdraw(0)
    scores = (np.random.default_rng(5).random((3, ITEMS)) < [[0.9], [0.9], [0.0]]).astype(float)
    while not race.finished:
        race.observe(scores[np.ix_(race.racing, race.next_items)])
    assert (race.seen[1:] == ITEMS).all()


def test_scores_outside_of_the_unit_interval_are_refused():
    race = Race(SHARES, GROUPS, KNOWN, candidates=2, parents=1, confidence=0.95, tolerance=0.0, seed=0)
    with pytest.raises(ValueError, match="must lie in"):
        race.observe(np.full((2, len(race.next_items)), 1.5))


def test_thin_sampling_of_dead_items_saves_items():
    generator = np.random.default_rng(6)
    alive = np.arange(ITEMS) % 3 == 0
    known = np.where(alive, generator.random((30, ITEMS)) < 0.5, 1.0).astype(float)
    scores = np.where(alive, generator.random((8, ITEMS)) < np.linspace(0.1, 0.9, 8)[:, None], 1.0).astype(float)
    thinly, evenly = (
        sum(run(scores, known=known, parents=4, seed=seed, thin=thin).seen.sum() for seed in range(10))
        for thin in (True, False)
    )
    assert thinly < evenly


def test_resolution_is_the_margin_of_a_paired_difference():
    """Oracle: the mean over pairs, one by one."""
    pairs = [(first, second) for first in range(5) for second in range(first)]
    variance = np.mean([(SHARES**2 * (KNOWN[one] - KNOWN[other]) ** 2).sum() for one, other in pairs])
    assert resolution(SHARES, KNOWN, 0.95) == pytest.approx(np.sqrt(2 * np.log(20) * variance))
