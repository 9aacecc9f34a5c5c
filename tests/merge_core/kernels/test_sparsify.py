"""Masks keep exactly what they should, and the random numbers are the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from merge_core.kernels import dispatch, eager
from merge_core.kernels.eager import keep_mask
from merge_core.kernels.order_statistics import TaskVectorStatistics
from merge_core.kernels.random_numbers import draws, random_key
from merge_core.kernels.selection import RankedSelection, Selection
from merge_core.kernels.sparsify import TaskVector, drop_at_random, drop_by_rank, trim, trim_both
from merge_core.kernels.summation import stable_dot, stable_norm, stable_sum

WORD = 0xFFFFFFFF


def vector(values: torch.Tensor, key: int = 7) -> TaskVector:
    flat = values.reshape(-1)
    return TaskVector(flat, torch.zeros_like(flat), tuple(values.shape), TaskVectorStatistics(), key)


def mask_of(rule: Selection, values: torch.Tensor) -> torch.Tensor:
    """What a rule keeps; the compiled kernel must say the same."""
    flat = values.reshape(-1)
    mask = torch.ones_like(flat, dtype=torch.bool) if rule is None else keep_mask(flat, rule)
    kept = dispatch.combine([flat], torch.zeros_like(flat), [rule], [1.0])
    assert torch.equal(kept, torch.where(mask, flat, 0.0))
    return mask.view(values.shape)


def magnitude_mask(values: torch.Tensor, density: float) -> torch.Tensor:
    return mask_of(trim(vector(values), density), values)


def outlier_mask(values: torch.Tensor, density: float, gamma: float) -> torch.Tensor:
    return mask_of(trim_both(vector(values), density, gamma), values)


def lowbias32(word: int) -> int:
    """The published hash, in Python's integers."""
    word ^= word >> 16
    word = word * 0x21F0AAAD & WORD
    word ^= word >> 15
    word = word * 0xD35A2D97 & WORD
    return word ^ word >> 15


@pytest.mark.parametrize("index", [0, 1, 2**14 - 1, 2**14, 2**15 + 5, 39_999])
def test_draws_are_halves_of_the_published_hash_of_key_and_position(index: int):
    key = random_key(3, "org/name", "layer")
    word = lowbias32((lowbias32(index // 2 ^ (key & WORD)) + (key >> 32)) & WORD)
    assert draws(key, 40_000)[index].item() == (word >> 16 if index % 2 else word & 0xFFFF)


def test_draws_do_not_depend_on_threads_or_on_how_many_are_drawn():
    key = random_key(0, "a", "t")
    whole = draws(key, 70_001)
    assert torch.equal(draws(key, 20_000), whole[:20_000])
    assert torch.equal(draws(key, 20_001, start=50_000), whole[50_000:])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(draws(key, 70_001), whole)
    finally:
        torch.set_num_threads(threads)


def test_draws_are_uniform_and_independent_between_seeds_models_and_tensors():
    drawn = (draws(random_key(0, "a", "t"), 300_000) + 0.5).numpy() * 2.0**-16
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    for other in (random_key(1, "a", "t"), random_key(0, "b", "t"), random_key(0, "a", "u")):
        assert abs(np.corrcoef(drawn, draws(other, 300_000).numpy())[0, 1]) < 0.01


def test_draws_pass_a_chi_square_test_in_every_byte_and_at_many_lags():
    drawn = draws(random_key(5, "a", "t"), 1 << 20).to(torch.int64)
    for one in (drawn, drawn[::2], drawn[1::2]):  # both halves of a word
        for shift in (0, 4, 8):
            counts = torch.bincount((one >> shift) & 255, minlength=256)
            assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    for first, second in ((drawn[:-1], drawn[1:]), (drawn[:-2], drawn[2:]), (drawn[::2], drawn[1::2])):
        for shift in (0, 12):
            pairs = torch.bincount((first >> shift & 15) * 16 + (second >> shift & 15), minlength=256)
            assert stats.chisquare(pairs.numpy()).pvalue > 1e-4
    centred = drawn.double().numpy() / 2**16 - 0.5
    for lag in (1, 2, 64, 1024, 4096, 1 << 16):
        assert abs((centred[:-lag] * centred[lag:]).mean()) * 12 < 5 / np.sqrt(centred.size - lag)


def test_numbers_kept_of_blocks_vary_as_binomial_ones():
    kept = (draws(random_key(6, "a", "t"), 1 << 21) < 20_000).view(-1, 512).sum(dim=1).numpy()
    probability = 20_000 / 2**16
    expected = stats.binom.ppf(np.arange(1, 20) / 20, 512, probability)
    counts = np.bincount(np.searchsorted(expected, kept), minlength=20)
    shares = np.diff(stats.binom.cdf([-1, *expected, 512], 512, probability))
    assert stats.chisquare(counts, shares * kept.size).pvalue > 1e-4


def test_words_differ_in_half_of_their_bits_when_one_bit_of_key_or_counter_changes():
    key, count = random_key(7, "a", "t"), 1 << 15
    words = draws(key, 2 * count).view(-1, 2)
    for bit in range(0, 64, 7):
        changed = words ^ draws(key ^ 1 << bit, 2 * count).view(-1, 2)
        shares = torch.stack([changed >> place & 1 for place in range(16)]).double().mean(dim=1)
        assert (shares - 0.5).abs().max() < (0.05 if bit < 32 else 0.2)
    for bit in range(14):
        changed = words.view(-1, 1 << bit, 2)[0::2] ^ words.view(-1, 1 << bit, 2)[1::2]
        shares = torch.stack([changed >> place & 1 for place in range(16)]).double().mean(dim=(1, 2))
        assert (shares - 0.5).abs().max() < 0.05


def test_masks_of_many_tensors_are_independent():
    masks = torch.stack([draws(random_key(0, "a", f"layer {i}"), 1 << 14) < 1 << 15 for i in range(40)]).double()
    correlation = torch.corrcoef(masks)
    off_diagonal = correlation[~torch.eye(40, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 5 / 2**7
    assert abs(off_diagonal.mean()) < 5 / 2**7 / 28


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([trim, drop_at_random]))
@settings(max_examples=40, deadline=None)
def test_what_is_kept_at_a_density_is_kept_at_every_higher_one(one: float, two: float, sparsify: Any):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(3)).bfloat16().float()
    low, high = (mask_of(sparsify(vector(values), density), values) for density in sorted((one, two)))
    assert not (low & ~high).any()
    assert abs(high.float().mean().item() - max(one, two)) < 0.06


@given(st.integers(1, 200), st.floats(0, 1), st.booleans())
def test_trimming_keeps_exactly_the_share_and_only_the_largest(count: int, density: float, with_ties: bool):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    if with_ties:
        values = values.round()
    mask = magnitude_mask(values, density)
    assert int(mask.sum()) == max(int(density * count), int(density > 0))
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
    values = torch.tensor([3.0, -1.0, 2.0, 0.1, 0.3, -0.2]).repeat(20_000)
    kept = mask_of(drop_by_rank(vector(values.view(-1, 3)), 0.5, 0.2), values).view(-1, 6).double().mean(dim=0)
    torch.testing.assert_close(kept, torch.tensor([0.7, 0.3, 0.5, 0.3, 0.7, 0.5]).double(), atol=0.015, rtol=0)
    kept_alone = mask_of(drop_by_rank(vector(values.view(-1, 1)), 0.5, 0.2), values)
    assert abs(kept_alone.double().mean() - 0.5) < 0.01


@pytest.mark.parametrize("spread", ["of 16 bits", "of 32", "alike", "far below a few"])
@pytest.mark.parametrize("length", [1, 7, 250, 3000])
def test_ranks_are_those_of_a_stable_sort(length: int, spread: str):
    values = torch.randn(6000 // length, length, generator=torch.Generator().manual_seed(length))
    if spread == "of 16 bits":
        values = values.bfloat16()
    elif spread == "alike":  # in one bucket, each different
        values = 1 + values * 1e-4
    elif spread == "far below a few":
        values[:, ::100] *= 1e9
    flat = values.view(-1)
    expected = values.float().abs().argsort(dim=-1, stable=True).argsort(dim=-1).view(-1)
    assert torch.equal(dispatch.ranks(flat, None, length).long(), expected)
    assert torch.equal(eager.ranks(flat, None, length).long(), expected)


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.2), (0.3, 0.0), (1e-4, 9e-5), (0.9999, 9e-5)])
@pytest.mark.parametrize("length", [1, 2, 250, 70_000])
def test_limits_rise_linearly_with_the_rank(length: int, density: float, epsilon: float):
    values = torch.arange(1, length + 1, dtype=torch.float32).flip(0)
    rule = drop_by_rank(vector(values), density, epsilon)
    assert isinstance(rule, RankedSelection)
    limits = np.array([rule.limit + (rule.slope * rank >> 16) for rank in range(length)])
    expected = np.linspace(density - epsilon, density + epsilon, length) if length > 1 else np.array([density])
    assert np.abs(limits / 2**16 - expected).max() < 2 * 2.0**-16
    assert limits.min() >= 0
    drawn = draws(rule.key, length).numpy()
    assert np.array_equal(mask_of(rule, values).numpy(), drawn < limits[::-1])


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
