"""The README's table of a search on a card is what `evolve check` says of it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from evolve.preflight.cards import CARDS

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_table_is_what_check_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    rows = runpy.run_path(str(ROOT / "benchmarks" / "card_table.py"))["rows"](tmp_path)
    assert "\n".join(rows) in (ROOT / "README.md").read_text()


def test_the_page_names_the_cards_that_are_known():
    page = " ".join((ROOT / "docs" / "hardware.md").read_text().split())
    assert ", ".join(f"`{card.key}`" for card in CARDS) in page
