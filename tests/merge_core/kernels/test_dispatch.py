"""The compiled kernels, the plain torch ones, one thread and several, wholes and parts: the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from merge_core.kernels import compiled, dispatch, eager, order_statistics
from merge_core.kernels.constants import PART
from merge_core.kernels.order_statistics import TaskVectorStatistics, all_but_largest, largest
from merge_core.kernels.output import Output
from merge_core.kernels.selection import (
    NOTHING,
    AfterEqual,
    MagnitudeRange,
    Move,
    RandomSelection,
    RankedSelection,
    Selection,
)

COUNT = 70_003
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def tensors(count: int, dtype: torch.dtype, size: int = COUNT) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    common = torch.randn(size, generator=generator)
    return [(common + 0.1 * torch.randn(size, generator=generator)).to(dtype) for _ in range(count)]


def same_bits(one: Tensor, two: Tensor) -> bool:
    return torch.equal(one.view(torch.uint8), two.view(torch.uint8))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


RULES: dict[str, list[Selection]] = {
    "all": [None, None, None],
    "band": [MagnitudeRange(0x3D800000, 30_000), MagnitudeRange(0x3D000000, 0, 0x3E000000, 5000), NOTHING],
    "draws": [RandomSelection(3 << 40 | 11, 1 << 15), RandomSelection(5, 1 << 14), None],
    "ranks": [
        RankedSelection(3 << 40 | 11, (torch.arange(COUNT) * 7 % 50_000).to(torch.uint16), 1 << 14, 1 << 15),
        None,
        RankedSelection(12, torch.arange(COUNT, dtype=torch.int32), 0, 50_000),
    ],
}


def combined(
    rules: list[Selection], dtype: torch.dtype, out_dtype: torch.dtype, out: Tensor | None = None, **options: Any
) -> Tensor:
    base, *sources = tensors(4, dtype)
    return dispatch.combine(sources, base, rules, [0.3, -0.7, 1.1], output=Output(out_dtype, out), **options)


@pytest.mark.parametrize("out_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rules", RULES)
def test_compiled_and_eager_and_threaded_and_in_place_agree(
    rules: str, dtype: torch.dtype, out_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    for options in ({}, {"elect": True, "scaling": 0.7}, {"elect": True, "weights": [0.3, -0.7, 1.1]}):
        monkeypatch.setattr(compiled, "SPAN", 1 << 30)
        with threads(1):
            whole = combined(RULES[rules], dtype, out_dtype, **options)
        monkeypatch.setattr(compiled, "SPAN", 8192)
        with threads(3):
            assert same_bits(combined(RULES[rules], dtype, out_dtype, **options), whole)
        live = torch.full((COUNT,), 9.0)
        assert combined(RULES[rules], dtype, out_dtype, out=live, **options).data_ptr() == live.data_ptr()
        assert same_bits(live.to(out_dtype), whole)
        assert torch.equal(live, whole.float())
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "kernels", lambda device: eager)
            assert torch.equal(combined(RULES[rules], dtype, out_dtype, **options), whole)


@pytest.mark.parametrize("weights", [[], [0.3, -0.7, 1.1]])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rules", RULES)
def test_what_moves_add_to_an_elected_sum_agrees(
    rules: str, dtype: torch.dtype, weights: list[float], monkeypatch: pytest.MonkeyPatch
):
    gradient, base, *sources = tensors(5, dtype)
    own = RULES[rules]
    moves = [Move(0, own[0], 0.35, 0.35), Move(2, own[1], 1.1, 0.9), Move(1, NOTHING, -0.7, -0.7)]

    def told() -> tuple[float, list[float]]:
        given = (gradient, sources, base, own, [0.3, -0.7, 1.1])
        here, changes = dispatch.contract_elected(*given, moves, weights=weights)
        assert dispatch.contract_elected(*given, [], weights=weights) == (here, [])
        return here, changes

    monkeypatch.setattr(compiled, "SPAN", 8192)
    with threads(3):
        found = told()
    monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    assert told() == found


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=300))
@settings(max_examples=100)
def test_rounding_and_widening_are_those_of_torch(numbers: list[float]):
    values = torch.tensor(numbers)
    for dtype in DTYPES:
        expected = values.to(dtype)
        if torch.isfinite(expected).all():
            assert same_bits(
                dispatch.combine([values], None, [None], [1.0], output=Output(dtype)), (values + 0).to(dtype)
            )
            widened = dispatch.combine([expected], None, [None], [1.0], output=Output(torch.float32))
            assert same_bits(widened, expected.float() + 0)
        else:
            with pytest.raises(dispatch.NotFiniteError):
                dispatch.combine([values], None, [None], [1.0], output=Output(dtype))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("elect", [True, False])
def test_a_number_that_is_not_finite_is_found(bad: float, elect: bool):
    base, first, second = tensors(3, torch.float32)
    first[COUNT - 2] = bad
    with pytest.raises(dispatch.NotFiniteError):
        dispatch.combine([first, second], base, [None, None], [1.0, 2.0], elect=elect, output=Output(torch.bfloat16))


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_magnitudes_agree(rules: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    source, base = tensors(2, dtype)
    rule = RULES[rules][0]
    unit = dispatch.sum_unit(source, base)
    total = dispatch.magnitude_sum(source, base, rule, unit)
    monkeypatch.setattr(compiled, "SPAN", 8192)
    with threads(3):
        assert dispatch.sum_unit(source, base) == unit
        assert dispatch.magnitude_sum(source, base, rule, unit) == total
    monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    assert dispatch.sum_unit(source, base) == unit
    assert dispatch.magnitude_sum(source, base, rule, unit) == total
    exact = eager.kept(source.float() - base.float(), rule).double().abs().sum().item()
    assert total / unit**2 == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1.0, 3e38])
def test_sums_of_magnitudes_of_any_size_are_exact_to_seven_digits(size: float):
    source = (torch.linspace(-1, 1, 5001) * size)[1:]
    statistics = TaskVectorStatistics()
    whole = statistics.magnitude_sum(source, None, None)
    middle = source.abs().max() / 2
    half = statistics.magnitude_sum(source, None, MagnitudeRange(int(middle.view(torch.int32)), 0))
    exact = source.double().abs()
    kept = exact[exact > middle].sum()
    assert half / whole == pytest.approx(float(kept / exact.sum()), rel=1e-6)


@pytest.mark.parametrize("way", ["compiled", "eager"])
@pytest.mark.parametrize("ranks", [None, torch.uint16, torch.int32])
def test_sums_by_draw_are_the_sums_at_every_density(
    ranks: torch.dtype | None, way: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(order_statistics, "MANY_ENTRIES", 1)
    if way == "eager":
        monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    source, base = tensors(2, torch.bfloat16)
    made: list[str] = []
    known = TaskVectorStatistics(lambda name, make: (made.append(name), make())[1])
    unit = dispatch.sum_unit(source, base)
    places = None if ranks is None else (torch.arange(COUNT) * 7 % 50_000).to(ranks)
    for key in (11, 5 << 40):
        for limit in (0, 1, 20_000, 1 << 15, 60_000):
            rule = RandomSelection(key, limit) if places is None else RankedSelection(key, places, limit, 6000)
            assert known.magnitude_sum(source, base, rule) == dispatch.magnitude_sum(source, base, rule, unit)
    assert len(made) == 2  # one table for each key
    whole = known.magnitude_sum(source, base, None)
    assert whole == dispatch.magnitude_sum(source, base, None, unit)
    assert whole == known.magnitude_sum(source, base, RandomSelection(3, 1 << 16))


def test_a_search_makes_one_table_of_its_first_draws_and_others_when_their_limits_vary(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(order_statistics, "MANY_ENTRIES", 1)
    source, base = tensors(2, torch.bfloat16)
    made: list[str] = []
    known = TaskVectorStatistics(lambda name, make: (made.append(name), make())[1])
    places = torch.arange(COUNT, dtype=torch.int32)
    for slope, limit, tables in [(6000, 9000, 1), (6000, 8000, 1), (7000, 9000, 1), (8000, 9000, 1), (7000, 8000, 2)]:
        known.magnitude_sum(source, base, RankedSelection(11, places, limit, slope))
        assert len(made) == tables


@pytest.mark.parametrize("is_search", [True, False])
def test_a_threshold_among_many_equal_entries_is_that_of_a_stable_sort(
    is_search: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(order_statistics, "LOOKED_AT", 1)
    source = (torch.arange(PART + 3 * COUNT) * 7919 % 11 - 5).to(torch.bfloat16)
    base = torch.zeros_like(source)
    order = (-source.float().abs()).argsort(stable=True)
    made: list[str] = []
    known = TaskVectorStatistics((lambda name, make: (made.append(name), make())[1]) if is_search else None)
    if is_search:
        monkeypatch.setattr(dispatch, "count_equal", None)  # a pass for each threshold
    for count in (1, COUNT, source.numel() // 3, source.numel() - 2):
        rule = largest(known if is_search else TaskVectorStatistics(), source, base, count)
        assert isinstance(rule, MagnitudeRange)
        kept = eager.keep_mask(source.float(), rule).nonzero().view(-1)
        assert torch.equal(kept, order[:count].sort().values)
    assert made == (["magnitudes", "frequent"] if is_search else [])


@given(st.integers(1, 400), st.data())
@settings(max_examples=100, deadline=None)
def test_thresholds_are_those_of_a_stable_sort(count: int, data: st.DataObject):
    # Few different values, so that there are ties and zeros.
    steps = data.draw(st.sampled_from([2, 8, 1000]))
    generator = torch.Generator().manual_seed(count)
    source = (torch.randn(count, generator=generator) * steps).round() / steps
    kept = data.draw(st.integers(1, count))
    dropped = data.draw(st.integers(0, count - kept))
    order = (-source.abs()).argsort(stable=True)
    expected = torch.zeros(count, dtype=torch.bool)
    expected[order[dropped : dropped + kept]] = True
    statistics = TaskVectorStatistics()
    for _ in range(2):
        rule = all_but_largest(statistics, source, None, kept, dropped)
        mask = torch.ones(count, dtype=torch.bool) if rule is None else eager.keep_mask(source, rule)
        assert torch.equal(mask, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_thresholds_do_not_depend_on_how_they_are_found(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    source, base = tensors(2, dtype)
    counts = [1, 17, COUNT // 3, COUNT // 2, COUNT - 1]
    found = [largest(TaskVectorStatistics(), source, base, count) for count in counts]
    monkeypatch.setattr(compiled, "SPAN", 8192)
    with threads(3):
        assert [largest(TaskVectorStatistics(), source, base, count) for count in counts] == found
    monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    assert [largest(TaskVectorStatistics(), source, base, count) for count in counts] == found
    magnitude = (source.float() - base.float()).abs().numpy()
    for count, rule in zip(counts, found, strict=True):
        assert isinstance(rule, MagnitudeRange)
        assert np.sort(magnitude)[COUNT - count].view(np.uint32) == rule.low


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_agree_and_so_do_spans(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    source, base = tensors(2, dtype, 3 * PART + 5)
    low = eager.low_bits(source)
    codes, counts = dispatch.count_magnitudes(source, base)
    values = [int(code) // 2 << low for code in codes[codes % 2 == 0][::3]]

    def found() -> list[np.ndarray[Any, Any]]:
        return [
            dispatch.count_magnitudes(source, base),
            dispatch.count_low_bits(source, base, int(codes[counts.argmax()]) // 2),
            dispatch.count_equal(source, base, values[0]),
            dispatch.count_by_part(source, base, values[::-1]),
        ]

    expected = found()
    monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    for span in (PART, 1 << 24):
        monkeypatch.setattr(eager, "SPAN", span)
        for ours, theirs in zip(found(), expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("rules", RULES)
def test_spans_change_nothing(rules: str, monkeypatch: pytest.MonkeyPatch):
    whole = combined(RULES[rules], torch.bfloat16, torch.float32, elect=True)
    source, base = tensors(2, torch.bfloat16)
    total = dispatch.magnitude_sum(source, base, RULES[rules][0], 2.0**12)
    rows = [tensor[: COUNT // 9 * 9] for tensor in (source, base)]
    ranks = dispatch.ranks(*rows, COUNT // 9)
    monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
    monkeypatch.setattr(eager, "SPAN", 1 << 14)
    assert same_bits(combined(RULES[rules], torch.bfloat16, torch.float32, elect=True), whole)
    assert dispatch.magnitude_sum(source, base, RULES[rules][0], 2.0**12) == total
    assert torch.equal(dispatch.ranks(*rows, COUNT // 9), ranks.to(torch.int32))


def test_positions_that_only_other_kernels_look_up_are_refused(monkeypatch: pytest.MonkeyPatch):
    source, base = tensors(2, torch.float32, 10)
    for _ in range(2):
        with pytest.raises(TypeError, match="not looked up here"):
            dispatch.combine([source], base, [MagnitudeRange(5, AfterEqual(0, 1))], [1.0])
        monkeypatch.setattr(dispatch, "kernels", lambda device: eager)


def test_a_tensor_without_entries_has_a_sum_of_0(monkeypatch: pytest.MonkeyPatch):
    nothing = torch.empty(0, dtype=torch.bfloat16)
    for _ in range(2):
        assert TaskVectorStatistics().magnitude_sum(nothing, nothing, RandomSelection(5, 1 << 15)) == 0
        monkeypatch.setattr(dispatch, "kernels", lambda device: eager)
