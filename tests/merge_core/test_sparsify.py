"""Masks keep exactly what they should, and the random numbers are the same everywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from merge_core.sparsify import (
    magnitude_mask,
    outlier_mask,
    random_key,
    random_mask,
    rank_probabilities,
    rescale_to_l1,
    uniform,
)
from merge_core.summation import stable_dot, stable_norm, stable_sum

WORD = 0xFFFFFFFF


def triple32(word: int) -> int:
    """The published hash, in Python's integers."""
    word ^= word >> 17
    word = word * 0xED5AD4BB & WORD
    word ^= word >> 11
    word = word * 0xAC4C1B51 & WORD
    word ^= word >> 15
    word = word * 0x31848BAB & WORD
    return word ^ word >> 14


@pytest.mark.parametrize("index", [0, 1, 2**14 - 1, 2**14, 2**15 + 5, 39_999])
def test_draws_are_the_published_hash_of_key_and_position(index: int):
    key = random_key(3, "org/name", "layer")
    expected = triple32((triple32(index ^ (key & WORD)) + (key >> 32)) & WORD) >> 8
    assert uniform(key, 40_000)[index].item() == expected * 2.0**-24


def test_draws_do_not_depend_on_threads_or_on_how_many_are_drawn():
    key = random_key(0, "a", "t")
    whole = uniform(key, 70_000)
    assert torch.equal(uniform(key, 20_000), whole[:20_000])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(uniform(key, 70_000), whole)
    finally:
        torch.set_num_threads(threads)


def test_draws_are_uniform_and_independent_between_seeds_models_and_tensors():
    draws = uniform(random_key(0, "a", "t"), 300_000).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.01
    for other in (random_key(1, "a", "t"), random_key(0, "b", "t"), random_key(0, "a", "u")):
        assert abs(np.corrcoef(draws, uniform(other, 300_000).numpy())[0, 1]) < 0.01


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=20)
def test_what_is_kept_at_a_density_is_kept_at_every_higher_one(one: float, two: float):
    draws = uniform(7, 1000)
    low, high = random_mask(draws, min(one, two)), random_mask(draws, max(one, two))
    assert not (low & ~high).any()
    assert abs(high.float().mean().item() - max(one, two)) < 0.06


@given(st.integers(1, 200), st.floats(0, 1), st.booleans())
def test_trimming_keeps_exactly_the_share_and_only_the_largest(count: int, density: float, with_ties: bool):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    if with_ties:
        values = values.round()
    mask = magnitude_mask(values, density)
    assert int(mask.sum()) == int(density * count)
    if mask.any() and not mask.all():
        assert values[mask].abs().min() >= values[~mask].abs().max()


def test_ties_are_kept_in_memory_order():
    assert magnitude_mask(torch.ones(5), 0.4).tolist() == [True, True, False, False, False]


@given(st.integers(1, 150), st.floats(0, 1), st.floats(0, 1))
def test_breadcrumbs_keep_density_whatever_gamma_is(count: int, density: float, gamma: float):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    mask = outlier_mask(values, density, gamma)
    kept, dropped_outliers = int(density * count), min(int(gamma * count), count - int(density * count))
    order = values.abs().argsort(descending=True)
    expected = torch.zeros(count, dtype=torch.bool)
    expected[order[dropped_outliers : dropped_outliers + kept]] = True
    assert torch.equal(mask, expected)


def test_breadcrumbs_keep_density_when_gamma_rounds_to_zero():
    assert int(outlier_mask(torch.randn(50), 0.5, 0.01).sum()) == 25


def test_keep_probabilities_rise_with_the_rank_in_the_row():
    probabilities = rank_probabilities(torch.tensor([[3.0, -1.0, 2.0], [0.1, 0.3, -0.2]]), 0.5, 0.2)
    expected = torch.tensor([[0.7, 0.3, 0.5], [0.3, 0.7, 0.5]])
    torch.testing.assert_close(probabilities, expected)
    assert rank_probabilities(torch.tensor([4.0]), 0.5, 0.2).item() == 0.5


def test_rescaling_restores_the_l1_norm_and_leaves_zeros():
    dense = torch.randn(1000)
    sparse = dense * magnitude_mask(dense, 0.3)
    restored = rescale_to_l1(sparse, dense)
    assert restored.abs().sum().item() == pytest.approx(dense.abs().sum().item(), rel=1e-5)
    assert not rescale_to_l1(torch.zeros(10), torch.ones(10)).any()


def test_sums_have_the_same_bits_with_any_number_of_threads():
    values = torch.randn(3, 100_003, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        sums = set()
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums.add((stable_sum(values), stable_dot(values, values)))
    finally:
        torch.set_num_threads(threads)
    assert len(sums) == 1
    assert stable_sum(values) == pytest.approx(values.double().sum().item(), abs=1e-2)
    assert stable_norm(values) == pytest.approx(values.double().norm().item(), rel=1e-6)
