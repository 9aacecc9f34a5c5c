"""The base is found in families that are made up: by noise, by low ranks, in 16 bits, with the base and without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.inspection.ancestry import Ancestry, find_base, stated_bases
from evolve.inspection.differences import Differences
from evolve.inspection.row_sample import RowSample
from merge_core import Checkpoint

SHAPE = (48, 80)
MATRICES = 3


def noise(generator: torch.Generator, scale: float) -> torch.Tensor:
    return scale * torch.randn(SHAPE, generator=generator)


def low_rank(generator: torch.Generator, scale: float) -> torch.Tensor:
    thin = torch.randn((SHAPE[0], 4), generator=generator) @ torch.randn((4, SHAPE[1]), generator=generator)
    return scale * thin / 2


def few_elements(generator: torch.Generator, scale: float) -> torch.Tensor:
    """What is left of small steps in 16 bits: most weights round to what they were."""
    return torch.where(torch.rand(SHAPE, generator=generator) < 0.3, noise(generator, scale), torch.zeros(()))


def family(seed: int, kind: Any, lengths: list[float]) -> list[list[torch.Tensor]]:
    """A base, then a fine-tune of each length; each a list of matrices."""
    generator = torch.Generator().manual_seed(seed)
    base = [noise(generator, 1.0) for _ in range(MATRICES)]
    return [base, *([one + kind(generator, length) for one in base] for length in lengths)]


def differences(models: list[list[torch.Tensor]]) -> Differences:
    found = Differences(len(models))
    for number in range(MATRICES):
        found.add(number, "weight", RowSample(torch.stack([model[number] for model in models]), 1.0, 0))
    return found


def verdict(models: list[list[torch.Tensor]], stated: list[tuple[str, ...]] | None = None) -> Ancestry:
    labels = [f"m{number}" for number in range(len(models))]
    return find_base(labels, differences(models), stated or [()] * len(models))


KINDS = pytest.mark.parametrize("kind", [noise, low_rank, few_elements])


@KINDS
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.floats(0.02, 0.08), min_size=2, max_size=5),
    place=st.integers(0, 5),
)
def test_the_base_is_found_wherever_it_stands(kind: Any, seed: int, lengths: list[float], place: int) -> None:
    base, *tunes = family(seed, kind, lengths)
    place = min(place, len(tunes))
    assert verdict([*tunes[:place], base, *tunes[place:]]).base == place


@KINDS
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(3, 6))
def test_siblings_alone_have_no_base_among_them(kind: Any, seed: int, count: int) -> None:
    _, *tunes = family(seed, kind, [0.05] * count)
    found = verdict(tunes)
    assert found.base is None
    assert "siblings" in found.reason


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_model_far_from_two_that_are_close_is_not_called_their_base(seed: int) -> None:
    """What is between these is noise, beside which every other difference has a low rank."""
    generator = torch.Generator().manual_seed(seed)
    base, far, shared = family(seed, low_rank, [0.05, 0.03])
    close = [[one + noise(generator, 0.008) for one in shared] for _ in range(2)]
    assert verdict([far, *close]).base is None
    assert verdict([base, far, shared]).base == 0


def test_layers_that_nobody_trained_tell_nothing() -> None:
    base, *tunes = family(1, noise, [0.05] * 3)
    frozen = RowSample(torch.stack([base[0]] * 4), 1.0, 0)
    found = differences([base, *tunes])
    for _ in range(20):
        found.add(9, "weight", frozen)
    assert find_base(["a", "b", "c", "d"], found, [()] * 4).base == 0


def test_of_two_models_only_what_they_say_tells_the_base() -> None:
    base, tune = family(0, noise, [0.05])
    assert verdict([base, tune]).base is None
    assert verdict([base, tune], [(), ("some-org/m0",)]).base == 0
    assert verdict([base, tune], [("m1",), ("m0",)]).base is None


def test_where_weights_and_words_differ_the_weights_decide_and_both_are_told() -> None:
    base, *tunes = family(0, noise, [0.05] * 3)
    found = verdict([base, *tunes], [(), ("m1",), ("m1",), ("m1",)])
    assert found.base == 0
    assert "they were made from m1" in found.reason


def test_what_a_card_says_is_read_and_a_broken_card_is_not(tmp_path: Path) -> None:
    model = Checkpoint(tmp_path, {}, {})
    card = tmp_path / "README.md"
    assert stated_bases(model) == ()
    for text, wanted in (
        ("---\nbase_model: org/base\n---\nwords", ("org/base",)),
        ("---\nbase_model:\n- org/one\n- org/two\n---\n", ("org/one", "org/two")),
        ("---\nbase_model: [\n---\n", ()),
        ("---\n- a\n---\n", ()),
        ("no front matter", ()),
    ):
        card.write_text(text, encoding="utf-8")
        assert stated_bases(model) == wanted
