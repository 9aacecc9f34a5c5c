"""Seconds on a card, against sums made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evolve.config.machines import BackendConfig
from evolve.preflight.card_time import CardWork, active_parameters
from evolve.preflight.cards import Card
from evolve.preflight.memory_plan import MemoryPlan
from evolve.preflight.token_count import ItemTokens
from evolve.trials.spending import Purpose

CARD = Card("Test", 24_000_000_000, 1e12, 100e12, 30e9)
PARAMETERS = 7_000_000_000


def job(name: str, count: int, method: str) -> Any:
    return SimpleNamespace(output=name, inputs=range(4), shape=(count,), dtype=torch.bfloat16, method=method)


def work(method: str = "linear", **changes: Any) -> CardWork:
    plan: Any = SimpleNamespace(
        config={"num_hidden_layers": 28}, jobs=[job("weight", PARAMETERS, method)], parameter_count=PARAMETERS
    )
    found = CardWork(
        plan,
        {name: SimpleNamespace(stored_bytes=2 * PARAMETERS) for name in "abcd"},  # type: ignore[misc]
        BackendConfig(dtype="bfloat16", max_batch_tokens=2000),
        MemoryPlan(2 * PARAMETERS, 0, 2_000_000_000),
        {"task": 100},
        {"task": ItemTokens(150, 50)},
        {Purpose.CANDIDATES: 1000, Purpose.LOOKS: 40, Purpose.STEPS: 300},
        steps=10,
        look_items=20,
    )
    return replace(found, **changes)


def test_a_candidate_is_its_merge_its_prompts_and_its_answers():
    time = work().seconds(CARD)
    # Half of the 8 GB that are free keep sources; the others come as fast as the host brings them.
    streamed = (4 * 2 * PARAMETERS - 4e9) / 16.5e9
    merged = 5 * 2 * PARAMETERS / (290e9 / 4.8)
    assert time.merge == pytest.approx(streamed + merged)
    rate = 100e12 * 441 / 989
    assert time.reading == pytest.approx(2 * PARAMETERS * 100 * 150 / rate)
    # Ten rows at a time, whose every token waits for launches, which take longer than reading the weights.
    waits = 10 * 50 * max(2 * PARAMETERS / (1e12 * 4.2 / 4.8), 0.0097)
    assert time.writing == pytest.approx(waits + 2 * PARAMETERS * 100 * 50 / rate)
    assert time.candidate == pytest.approx(time.merge + time.reading + time.writing)


def test_a_search_is_what_its_item_evaluations_take():
    time = work().seconds(CARD)
    assert time.by_purpose[Purpose.CANDIDATES] == pytest.approx(10 * time.candidate)
    scored = (time.reading + time.writing) / 100
    assert time.by_purpose[Purpose.LOOKS] == pytest.approx(40 * scored + 2 * time.merge)
    assert time.total == pytest.approx(sum(time.by_purpose.values()))


def test_slower_methods_and_cards_take_longer_and_whole_weights_too():
    plain = work().seconds(CARD)
    assert work("breadcrumbs").seconds(CARD).merge > 1.3 * plain.merge
    over_a_slow_link = work().seconds(replace(CARD, link_bytes_per_second=15e9))
    assert over_a_slow_link.merge - plain.merge == pytest.approx((8 * PARAMETERS - 4e9) * (63 / 55 / 15e9 - 1 / 16.5e9))
    assert work("della").seconds(CARD).merge == work("karcher").seconds(CARD).merge
    assert work().seconds(replace(CARD, operations_per_second=50e12)).reading == pytest.approx(2 * plain.reading)
    packed = BackendConfig(dtype="bfloat16", max_batch_tokens=2000, quantization="4bit")
    assert work(backend=packed).seconds(CARD).writing > plain.writing


def test_a_token_goes_through_the_experts_that_it_is_sent_to():
    plan: Any = SimpleNamespace(
        config={"num_experts": 8, "num_experts_per_tok": 2},
        jobs=[job("layers.0.mlp.experts.gate_up_proj", 800, "linear"), job("layers.0.shared_experts.up", 10, "linear")],
    )
    assert active_parameters(plan) == 210
