"""Cards by the names that users and drivers give them."""

from __future__ import annotations

import pytest

from evolve.preflight.cards import CARDS, find_card, recognise_card
from evolve.problems import ConfigError


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA A100-SXM4-80GB", "a10080gb"),
        ("NVIDIA A100-SXM4-40GB", "a10040gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100pcie"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA H20", None),
    ],
)
def test_a_drivers_name_is_recognised_and_another_cards_is_not(name: str, key: str | None):
    card = recognise_card(name)
    assert (card and card.key) == key


def test_a_user_names_a_card_however_it_is_written_and_hears_what_is_known():
    assert find_card("RTX-4090") == find_card("rtx 4090") == find_card("rtx4090")
    assert len({card.key for card in CARDS}) == len(CARDS)
    with pytest.raises(
        ConfigError, match=r'--card: expected one of rtx3090, .* got "rtx4091"\. Did you mean "rtx4090"'
    ):
        find_card("rtx4091")
