"""The kernels in Triton give the bits of the others: under Triton's interpreter, or on the card where there is one."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from method_runs import EVERY, run
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
pytest.importorskip("triton", reason="pip install triton (Linux): the kernels of GPUs are not there without it")

from merge_core import METHODS  # noqa: E402
from merge_core.kernels import dispatch, eager, fused  # noqa: E402
from merge_core.kernels.constants import PART  # noqa: E402
from merge_core.kernels.order_statistics import TaskVectorStatistics, all_but_largest  # noqa: E402
from merge_core.kernels.selection import (  # noqa: E402
    NOTHING,
    MagnitudeRange,
    Move,
    RandomSelection,
    RankedSelection,
    Selection,
)

COUNT = 2051
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
RULES: dict[str, list[Selection]] = {
    "all": [None, None, None],
    "band": [MagnitudeRange(0x3D800000, 1500), MagnitudeRange(0x3D000000, 0, 0x3E000000, 700), NOTHING],
    "draws": [RandomSelection(0xF << 60 | 0x9 << 31, 1 << 15), RandomSelection(5, 1 << 14), None],
    "ranks": [
        RankedSelection(3 << 40 | 11, (torch.arange(COUNT) * 7 % 4000).to(torch.int32).to(DEVICE), 1 << 14, 1 << 18),
        None,
        RankedSelection(12, torch.arange(COUNT, dtype=torch.int32).to(DEVICE), 0, 800_000),
    ],
}
OPTIONS: list[dict[str, Any]] = [
    {"weights": [], "elect": False, "scaling": 1.0},
    {"weights": [], "elect": True, "scaling": 0.7},
    {"weights": [0.3, -0.7, 1.1], "elect": True, "scaling": 1.0},
]


def tensors(count: int, dtype: torch.dtype, size: int = COUNT) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    common = torch.randn(size, generator=generator)
    return [(common + 0.1 * torch.randn(size, generator=generator)).to(dtype).to(DEVICE) for _ in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rules", RULES)
def test_a_fused_sum_has_the_bits_of_the_plain_one(rules: str, dtype: torch.dtype):
    base, *sources = tensors(4, dtype)
    factors = [float(np.float32(factor)) for factor in (0.3, -0.7, 1.1)]
    for options, out_dtype in zip(OPTIONS, DTYPES, strict=True):
        settings = [options["weights"], options["elect"], options["scaling"]]
        expected = eager.combined(sources, base, RULES[rules], factors, *settings).to(out_dtype)
        for out in (torch.empty(COUNT, dtype=out_dtype, device=DEVICE), torch.empty(COUNT, device=DEVICE)):
            assert fused.combine(sources, base, RULES[rules], factors, *settings, out, out_dtype)
            assert torch.equal(out.to(out_dtype).view(torch.uint8), expected.view(torch.uint8))
            assert torch.equal(out.float(), expected.float())


def test_a_fused_sum_needs_no_base_and_takes_sources_of_several_dtypes():
    sources = [one.to(dtype) for one, dtype in zip(tensors(3, torch.float32), DTYPES, strict=True)]
    out = torch.empty(COUNT, device=DEVICE)
    assert fused.combine(sources, None, [None] * 3, [0.5, 0.25, 2.0], [], False, 1.0, out, torch.float32)
    assert torch.equal(out, eager.combined(sources, None, [None] * 3, [0.5, 0.25, 2.0], [], False, 1.0))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in which the interpreter computes
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3.4e38])
def test_a_number_that_is_not_finite_is_found(bad: float):
    base, source = tensors(2, torch.float32)
    source[COUNT - 2] = bad
    out = torch.empty(COUNT, dtype=torch.bfloat16, device=DEVICE)
    for options in OPTIONS[:2]:
        settings = [options["weights"], options["elect"], options["scaling"]]
        assert not fused.combine([source], base, [None], [2.0], *settings, out, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rules", RULES)
def test_fused_sums_of_magnitudes_and_counts_are_the_plain_ones(rules: str, dtype: torch.dtype):
    base, source = tensors(2, dtype)
    rule, low = RULES[rules][0], eager.low_bits(source)
    assert fused.largest_magnitude(source, base) == eager.largest_magnitude(source, base)
    for origin in (base, None):
        unit = dispatch.sum_unit(source, origin)
        assert fused.sum_magnitudes(source, origin, rule, unit) == eager.sum_magnitudes(source, origin, rule, unit)
        if isinstance(rule, (RandomSelection, RankedSelection)):
            expected = eager.sum_by_draw(source, origin, rule, unit)
            assert torch.equal(fused.sum_by_draw(source, origin, rule, unit), expected)
    counts = eager.count_magnitudes(source, base)
    assert torch.equal(fused.count_magnitudes(source, base), counts)
    values = [int(code) // 2 << low for code in counts.nonzero().view(-1) if code % 2 == 0][::-3] or [0]
    by_part = eager.count_by_part(source, base, values, 2048)
    assert torch.equal(fused.count_by_part(source, base, values, 2048), by_part)


@pytest.mark.parametrize("rules", RULES)
def test_fused_inner_products_have_the_bits_of_the_plain_ones(rules: str):
    base, gradient, *sources = tensors(5, torch.bfloat16)
    scales = [float(np.float32(one)) for one in (2.0, 1.3, -0.4)]
    found, expected = (one.contract(gradient, sources, base, RULES[rules], scales) for one in (fused, eager))
    assert torch.equal(found, expected)


def test_fused_inner_products_of_several_blocks_and_dtypes_and_of_nothing():
    gradient, *sources = (one.to(dtype) for one, dtype in zip(tensors(3, torch.float32, 4101), DTYPES, strict=True))
    settings: Any = (None, [None, None], [1.0, 0.5])
    assert torch.equal(fused.contract(gradient, sources, *settings), eager.contract(gradient, sources, *settings))
    assert fused.contract(gradient[:0], [one[:0] for one in sources], *settings).shape == (2, 0)


@pytest.mark.parametrize("weights", [[], [0.25, -0.5, 1.0]])
@pytest.mark.parametrize("rules", RULES)
def test_what_moves_add_to_an_elected_sum_has_the_bits_of_the_plain_one(rules: str, weights: list[float]):
    base, gradient, *sources = tensors(5, torch.bfloat16)
    own = RULES[rules]
    moves = [Move(0, own[0], 0.5, 0.5), Move(2, own[1], 1.0, 0.75), Move(1, NOTHING, -0.5, -0.5)]
    for asked in (moves, []):
        settings: Any = (base, own, [0.25, -0.5, 1.0], weights, asked)
        found, expected = (one.contract_elected(gradient, sources, *settings) for one in (fused, eager))
        assert found.shape == (1 + len(asked), 1)
        assert torch.equal(found, expected)


def test_moves_of_several_blocks_and_dtypes_and_of_nothing():
    gradient, *sources = (one.to(dtype) for one, dtype in zip(tensors(3, torch.float32, 4101), DTYPES, strict=True))
    settings: Any = (None, [None, None], [1.0, 0.5], [1.0, 0.5], [Move(1, None, 0.25, 0.25)])
    expected = eager.contract_elected(gradient, sources, *settings)
    assert torch.equal(fused.contract_elected(gradient, sources, *settings), expected)
    assert fused.contract_elected(gradient[:0], [one[:0] for one in sources], *settings).shape == (2, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_of_ranges_are_looked_up_where_the_entries_are(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    # Few values, so that every threshold lies among many equal ones; the last part is not full.
    source = (torch.arange(PART + 3 * COUNT, device=DEVICE) * 7919 % 11 - 5).to(dtype) / 8
    base = torch.zeros_like(source)
    counts = [1, COUNT, source.numel() // 3, source.numel() - 2]
    for count, dropped in [*zip(counts, (0, 7, 1000, 1), strict=True)]:
        known = TaskVectorStatistics(), source, base, count, dropped
        expected = eager.combined([source], base, [all_but_largest(*known)], [1.0], [], False, 1.0)
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "kernels", lambda device: fused)
            rule = all_but_largest(TaskVectorStatistics(), *known[1:])
            assert isinstance(rule, MagnitudeRange)
            assert not rule.is_resolved
            out = torch.empty_like(source)
            assert fused.combine([source], base, [rule], [1.0], [], False, 1.0, out, dtype)
            assert torch.equal(out.float(), expected)
            unit = dispatch.sum_unit(source, base)
            assert fused.sum_magnitudes(source, base, rule, unit) == eager.sum_magnitudes(expected, base, None, unit)


def test_a_method_that_selects_by_other_magnitudes_looks_ends_up_too(monkeypatch: pytest.MonkeyPatch):
    inputs = [(torch.arange(6000) * step % 7 - 3.0).view(60, 100) for step in (3, 5, 11)]
    expected = run("sce", inputs, 0, {}, select_topk=0.3)
    monkeypatch.setattr(dispatch, "kernels", lambda device: fused)
    assert torch.equal(run("sce", inputs, 0, {}, select_topk=0.3), expected)


@pytest.mark.parametrize(("method", "per_model", "settings"), EVERY)
def test_every_method_gives_the_same_with_fused_kernels(
    method: str, per_model: dict[str, list[float | None]], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    generator = torch.Generator().manual_seed(1)
    common = torch.randn(12, 16, generator=generator)
    inputs = [
        common + 0.3 * torch.randn(12, 16, generator=generator) for _ in range(3 if method == "model_stock" else 2)
    ]
    base = 0 if METHODS[method].base == "required" else None
    expected = run(method, inputs, base, per_model, **settings)
    monkeypatch.setattr(dispatch, "kernels", lambda device: fused)
    assert torch.equal(run(method, inputs, base, per_model, **settings), expected)


@pytest.fixture
def asked_anew():
    dispatch.fused_kernels.cache_clear()
    yield torch.device(DEVICE)
    dispatch.fused_kernels.cache_clear()


def test_kernels_that_agree_with_plain_torch_are_used(asked_anew: torch.device):
    assert dispatch.fused_kernels(asked_anew) is fused


def a_little_more(*arguments: Any) -> bool:
    fused_combine(*arguments)
    arguments[-2].mul_(1.01)
    return True


def no_compiler(*arguments: Any) -> Tensor:
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")


fused_combine = fused.combine


@pytest.mark.parametrize(
    ("kernel", "broken", "reason"),
    [("combine", a_little_more, "something else"), ("count_by_part", no_compiler, "Failed to find C compiler")],
)
def test_kernels_that_do_not_are_not_and_a_line_says_why(
    kernel: str, broken: Any, reason: str, asked_anew: torch.device, monkeypatch: Any, caplog: Any
):
    monkeypatch.setattr(fused, kernel, broken)
    assert dispatch.fused_kernels(asked_anew) is None
    assert reason in caplog.text
