"""What is said of a card: whether a search fits, how, and what it costs there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evolve.actions.check_card import RESERVED, CardReport, check_card
from evolve.config.machines import BackendConfig
from evolve.preflight.card_time import CardTime
from evolve.preflight.cards import Card
from evolve.preflight.memory_plan import MemoryPlan
from evolve.preflight.token_count import ItemTokens
from evolve.trials.spending import Purpose

CARD = Card("Test", 24_000_000_000, 1e12, 100e12, 30e9)


LLAMA = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8}


def report(live: int, tokens: int = 32768) -> CardReport:
    """Of a model with a million bytes of keys and values a token."""
    job: Any = SimpleNamespace(output="w", inputs=range(2), shape=(100,), dtype=torch.bfloat16, method="linear")
    backend = BackendConfig(dtype="bfloat16", device="cuda", max_batch_tokens=tokens)
    prepared: Any = SimpleNamespace(
        config=SimpleNamespace(backend=backend, start=SimpleNamespace(steps=96)),
        plan=SimpleNamespace(config=LLAMA, jobs=[job], parameter_count=100),
        checkpoints={},
        splits={"task": SimpleNamespace(search=(1, 2, 3, 4))},
    )
    cost: Any = SimpleNamespace(
        memory=MemoryPlan(live, 0, tokens * 1_000_000), merged=SimpleNamespace(parameters=100, bytes=200)
    )
    return check_card(CARD, prepared, cost, {"task": ItemTokens(10, 10)}, {Purpose.CANDIDATES: 8}, 0.5)


def test_a_batch_that_would_fit_is_suggested_where_the_whole_does_not():
    found = report(10_000_000_000)
    assert not found.fits("none")
    room = CARD.memory_bytes - RESERVED - 10_000_000_000
    assert found.batch_tokens["none"] == 8192 <= room / 1_000_000 < 2 * 8192
    assert "as it is 44.3 GB, fits with max_batch_tokens: 8192" in "\n".join(found.lines)


@pytest.mark.parametrize(("live", "tokens", "said"), [(10**10, 4096, "GB, fits;"), (3 * 10**10, 4096, "does not fit")])
def test_no_batch_is_where_all_fits_or_the_model_alone_does_not(live: int, tokens: int, said: str):
    found = report(live, tokens)
    assert "none" not in found.batch_tokens
    assert said in next(line for line in found.lines if "fits  " in line)


def test_the_price_is_of_the_time_and_of_none_nothing_is_said():
    time = CardTime(1.0, 2.0, 3.0, {Purpose.CANDIDATES: 7200.0})
    found = CardReport(CARD, {"none": 1}, {}, "none", time, 0.5)
    assert found.facts["computed_price"] == pytest.approx(1.0)
    assert "price     at most 1.00, at 0.50 an hour" in "\n".join(found.lines)
    unknown = CardReport(CARD, {"none": 1}, {}, "none", None, 0.5)
    assert "computed_price" not in unknown.facts
    assert "not computed for this backend" in "\n".join(unknown.lines)
