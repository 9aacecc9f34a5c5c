"""Numbers of a short form that follow a gradient: where they end, and that they stay where they may be."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evolve.simplify.refit import STEPS, refit
from evolve.simplify.short_form import Share, ShortForm
from evolve.simplify.sites import Cell, Site
from merge_core import ParameterSlot

TENSORS = [f"layers.{layer}.{kind}" for layer in range(4) for kind in ("self_attn", "mlp")]
PLACES = [("models", number, "parameters", "weight") for number in range(2)]


class Sloped:
    """Gradients of |numbers - wanted|² with noise; wanted are a number for attention, one for the rest, and one."""

    def __init__(self, wanted: tuple[float, float, float], steps: int = STEPS) -> None:
        self.prepared = SimpleNamespace(config=SimpleNamespace(start=SimpleNamespace(rate=0.1)))
        self._wanted = wanted
        self._left = steps
        self._noise = np.random.default_rng(0)

    def gradient(self, recipe: Mapping[Any, Any], cells: list[Cell], step: int) -> tuple[float, ...]:
        if self._left <= step:
            return ()
        attention, rest, other = self._wanted
        found = []
        for cell in cells:
            setting = recipe[PLACES[cell.slot.position or 0]]
            entries = setting if isinstance(setting, list) else [{"value": setting}]
            now = next(entry["value"] for entry in entries if entry.get("filter", "") in cell.tensor)
            wanted = other if cell.slot.position else (attention if "attn" in cell.tensor else rest)
            found.append(2 * (now - wanted) + float(self._noise.normal()) * 0.1)
        return tuple(found)


def moved(examiner: Any, high: float = 2.0) -> ShortForm | None:
    sites = [
        Site(place, -1.0, high, tuple(Cell(name, ParameterSlot("weight", number), name, 0.0) for name in TENSORS))
        for number, place in enumerate(PLACES)
    ]
    long: Any = SimpleNamespace(
        sites=sites, cells=[cell for site in sites for cell in site.cells], with_numbers=lambda settings: settings
    )
    form = ShortForm(((Share("attn", (0.5,)), Share(None, (0.5,))), (Share(None, (0.5,)),)))
    return refit(examiner, long, form)


def test_each_number_goes_where_all_the_tensors_that_share_it_lose_least() -> None:
    found = moved(Sloped((0.7, 0.3, 0.6)))
    assert found is not None
    assert [share.word for own in found.shares for share in own] == ["attn", None, None]
    assert found.values == pytest.approx([0.7, 0.3, 0.6], abs=0.1)
    assert all(round(value, 2) == value for value in found.values)  # as short as it can be told


def test_numbers_stay_in_their_ranges() -> None:
    found = moved(Sloped((5.0, -5.0, 0.5)), high=0.75)
    assert found is not None
    assert 0.5 < found.values[0] <= 0.75
    assert -1.0 <= found.values[1] < 0.5


def test_without_a_gradient_there_is_no_other_form() -> None:
    assert moved(Sloped((0.7, 0.3, 0.6), steps=5)) is None
