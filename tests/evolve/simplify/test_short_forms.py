"""Which tensors share numbers: losses against least squares by hand, what is planted is found, recipes mean it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.simplify.long_recipe import count_numbers
from evolve.simplify.metric import Metric
from evolve.simplify.short_form import Share, ShortForm
from evolve.simplify.short_forms import short_forms
from evolve.simplify.sites import Cell, Site
from merge_core import ParameterSlot

LAYERS = 11
KINDS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "input_layernorm")
TENSORS = [f"model.layers.{layer}.{kind}.weight" for layer in range(LAYERS) for kind in KINDS]
TENSORS += ["model.embed_tokens.weight", "model.norm.weight"]


def depth(tensor: str) -> float:
    return int(tensor.split(".")[2]) / (LAYERS - 1) if ".layers." in tensor else 0.0


def site(
    number: int, value: Any, moved: Any = lambda tensor: 1.0, high: float = 2.0, name: str = "weight", **more: Any
) -> Site:
    slot = ParameterSlot(name, number)
    cells = tuple(Cell(tensor, slot, tensor, value(tensor), moved(tensor), depth(tensor)) for tensor in TENSORS)
    return Site(("models", number, "parameters", name), -high / 2, high, cells, **more)


def forms_of(*sites: Site, gradients: Any = (), most: int = 12) -> list[ShortForm]:
    moved = [cell.moved for own in sites for cell in own.cells]
    return list(short_forms(sites, Metric.of([gradients], moved), most))


def written(site: Site, form: ShortForm) -> list[float]:
    """What a recipe with this form sets at every tensor, read as recipes are read."""
    setting = form.settings([site])[site.place]
    entries = setting if isinstance(setting, list) and isinstance(setting[0], dict) else [{"value": setting}]
    found = [next(one["value"] for one in entries if one.get("filter", "") in cell.tensor) for cell in site.cells]
    return [read(value, cell.depth) for value, cell in zip(found, site.cells, strict=True)]


def read(value: Any, depth: float) -> float:
    """A gradient over the layers, by numpy's own interpolation."""
    return float(np.interp(depth, np.linspace(0, 1, len(value)), value)) if isinstance(value, list) else float(value)


def words(form: ShortForm) -> tuple[tuple[str | None, ...], ...]:
    return tuple(tuple(share.word for share in own) for own in form.shares)


def attention_apart(tensor: str) -> float:
    return 0.9 if "self_attn" in tensor else 0.2


def test_what_is_planted_is_found() -> None:
    first, second, *_ = forms_of(site(0, attention_apart), site(1, lambda tensor: 0.5))
    assert (first.numbers, second.numbers) == (2, 3)
    assert second.shares == ((Share("self_attn", (0.9,)), Share(None, (0.2,))), (Share(None, (0.5,)),))
    assert second.loss == pytest.approx(0.0, abs=1e-9)


def test_a_layer_is_no_part_of_another() -> None:
    planted = site(0, lambda tensor: 1.0 if ".layers.1." in tensor else 0.0)
    form = forms_of(planted)[1]
    assert form.loss == pytest.approx(0.0, abs=1e-9)
    assert written(planted, form) == [cell.value for cell in planted.cells]


def test_what_moves_the_model_counts_where_there_is_no_gradient() -> None:
    def of_kind(tensor: str) -> float:
        return {"up_proj": 0.9, "input_layernorm": -0.9}.get(tensor.split(".")[-2], 0.0)

    for heavy in ("up_proj", "input_layernorm"):
        form = forms_of(site(0, of_kind, lambda tensor, heavy=heavy: 1000.0 if heavy in tensor else 1.0))[1]
        assert any(heavy.startswith(str(word)) or str(word) in f"mlp.{heavy}" for word in words(form)[0][:-1])


def test_numbers_that_make_up_for_one_another_may_move_together() -> None:
    """A loss that knows the sum of two models' numbers alone loses nothing where their sum stays."""
    sites = [site(0, lambda tensor: 0.6), site(1, lambda tensor: 0.2)]
    names = [cell.tensor for own in sites for cell in own.cells]
    gradients = [[1.0 if name == wanted else 0.0 for name in names] for wanted in TENSORS]
    uneven = [site(0, lambda tensor: 0.8 if "mlp" in tensor else 0.6), site(1, lambda t: 0.0 if "mlp" in t else 0.2)]
    together = forms_of(*uneven, gradients=gradients)[0]
    assert sum(together.values) == pytest.approx(0.8, abs=0.02)


def test_gradients_on_the_way_count_beside_those_at_its_end() -> None:
    here, way = [[3.0, 0.0], [0.0, 3.0]], [[0.0, 50.0]]
    both = Metric.of([here], [1.0, 1.0], way)
    assert (both.rows**2).sum(axis=1) == pytest.approx([0.35, 0.35, 0.3])
    for alone in (
        Metric.of([here], [1.0, 1.0]),
        Metric.of([], [1.0, 1.0], way),
        Metric.of([[[0.0, 0.0]]], [1.0, 1.0], way),
    ):
        assert (alone.rows**2).sum() == pytest.approx(1.0)


def test_both_ends_of_a_move_count_as_much_however_large_their_gradients_are() -> None:
    both = Metric.of([[[3.0, 0.0], [0.0, 3.0]], [[0.0, 50.0]]], [1.0, 1.0])
    assert (both.rows**2).sum(axis=1) == pytest.approx([0.25, 0.25, 0.5])
    one = Metric.of([[[3.0, 0.0]], []], [1.0, 1.0])
    assert (one.rows**2).sum(axis=1) == pytest.approx([1.0])


def weight(number: int, value: Any, **more: Any) -> Site:
    """Of a model that may be left out."""
    return site(number, value, model=("models", number), **more)


def density(number: int, value: Any) -> Site:
    return site(number, value, name="density", default=1.0)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_losses_are_those_of_least_squares_and_fall_with_every_number(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def any_value(tensor: str) -> float:
        return float(generator.uniform(-1, 2))

    sites = [weight(0, any_value, high=100.0), density(0, any_value), weight(1, any_value, high=100.0)]
    cells = [cell for own in sites for cell in own.cells]
    gradients = generator.normal(size=(7, len(cells)))
    metric = Metric.of([gradients.tolist()], [1.0] * len(cells))
    forms = forms_of(*sites, gradients=gradients.tolist(), most=9)
    assert [form.numbers for form in forms] == list(range(1, 10))
    root = np.concatenate([metric.rows, np.diag(np.sqrt(metric.prior))])
    losses = []
    for form in forms:
        away = meant(sites, form) - np.array([cell.value for cell in cells])
        away[len(TENSORS) : 2 * len(TENSORS)] *= bool(form.shares[0])  # the density of a model that is not there
        assert form.loss == pytest.approx(float(((root @ away) ** 2).sum()), rel=1e-6)
        losses.append(_least_squares(root, form, sites, away))
        if all(site.clip(value) not in (site.low, site.high) for site in sites for value in form.values):
            assert losses[-1] - 1e-9 <= form.loss <= 1.05 * losses[-1]
    assert all(after <= 1.05 * loss for loss, after in itertools.pairwise(losses))


def meant(sites: list[Site], form: ShortForm) -> Any:
    """What a recipe with this form says of every number of the long one."""
    return np.concatenate([written(own, ShortForm((shares,))) for own, shares in zip(sites, form.shares, strict=True)])


def test_what_varies_with_depth_is_a_gradient() -> None:
    planted = site(0, lambda tensor: round(float(np.interp(depth(tensor), [0, 0.5, 1], [0.2, 0.8, 0.5])), 6))
    form = forms_of(planted)[2]
    assert form.settings([planted]) == {planted.place: [0.2, 0.8, 0.5]}
    assert form.loss == pytest.approx(0.0, abs=1e-9)
    attention = site(0, lambda tensor: 0.2 + 0.5 * depth(tensor) if "self_attn" in tensor else 0.1)
    form = forms_of(attention)[2]
    filtered = [{"filter": "self_attn", "value": [0.2, 0.7]}, {"value": 0.1}]
    assert form.settings([attention]) == {attention.place: filtered}
    assert written(attention, form) == pytest.approx([cell.value for cell in attention.cells])


def test_a_gradient_has_no_more_knots_than_its_layers_tell() -> None:
    planted = site(0, lambda tensor: hash_of(tensor), high=100.0)
    for form in forms_of(planted, most=30):
        for share in form.shares[0]:
            own = {depth(tensor) for tensor in TENSORS if share.word is None or share.word in tensor}
            assert len(share.knots) <= min(len(own), 4)


def hash_of(tensor: str) -> float:
    return sum(map(ord, tensor)) % 97 / 97


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_knots_mean_what_a_merge_reads(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sites = [site(0, hash_of, high=100.0), site(1, hash_of, high=100.0)]
    shares = (Share("mlp", (0.5,)), Share("layers", tuple(generator.normal(size=4))), Share(None, (0.3, 0.1)))
    form = ShortForm((shares, (Share(None, tuple(generator.normal(size=3))),)))
    assert form.mixture(sites) @ form.values == pytest.approx(meant(sites, form))
    other = generator.normal(size=form.numbers)
    assert form.mixture(sites) @ other == pytest.approx(meant(sites, form.with_values(other)))


def test_of_models_the_one_that_is_missed_least_is_left_out() -> None:
    sites = [weight(number, lambda tensor, value=value: value) for number, value in enumerate((0.9, 0.1, 0.5))]
    first, second, third, *_ = forms_of(*sites)
    assert [form.numbers for form in (first, second, third)] == [1, 2, 3]
    assert [bool(own) for own in first.shares] == [True, False, False]
    assert [bool(own) for own in second.shares] == [True, False, True]
    assert second.settings(sites)[sites[1].place] == 0.0
    assert forms_of(*[replace(one, fewest=2) for one in sites])[0].numbers == 2


def test_densities_are_1_until_it_pays_to_say_them() -> None:
    sites = [weight(0, lambda tensor: 0.5), density(0, lambda tensor: 0.9)]
    first, second, *_ = forms_of(*sites)
    assert first.settings(sites) == {sites[0].place: 0.5, sites[1].place: 1.0}
    assert second.settings(sites) == {sites[0].place: 0.5, sites[1].place: 0.9}
    exact = [weight(0, lambda tensor: 0.5), density(0, lambda tensor: 1.0)]
    assert forms_of(*exact)[0].loss == pytest.approx(0.0, abs=1e-9)


def test_numbers_are_round_and_stay_in_their_range() -> None:
    form = forms_of(site(0, lambda tensor: 1.0 / 3 if "mlp" in tensor else 1.9999))[1]
    assert set(form.values) == {0.33, 2.0}
    sites = [site(0, lambda tensor: 2.0), site(1, lambda tensor: 2.0 if "mlp" in tensor else 0.0)]
    both = [[1.0] * (2 * len(TENSORS)), [1.0] * len(TENSORS) + [0.0] * len(TENSORS)]
    for form in forms_of(*sites, gradients=both):
        assert all(-1.0 <= value <= 2.0 for value in form.values)


def test_numbers_are_counted_in_parameters_alone() -> None:
    recipe = {
        "slices": [
            {"sources": [{"layer_range": [0, 4], "parameters": {"weight": [0.1, {"filter": "a", "value": 2}]}}]}
        ],
        "parameters": {"lambda": 0.5, "normalize": True},
    }
    assert count_numbers(recipe) == 3


def _least_squares(root: Any, form: ShortForm, sites: list[Site], away: Any) -> float:
    """The least loss of any numbers in the form's places, by numpy's own solver."""
    none = meant(sites, form.with_values([0.0] * form.numbers))
    columns = [meant(sites, form.with_values(unit.tolist())) - none for unit in np.eye(form.numbers)]
    matrix = root @ np.stack(columns, axis=1)
    here = root @ away - matrix @ np.array(form.values)
    numbers = np.linalg.lstsq(matrix, -here, rcond=None)[0]
    return float(((matrix @ numbers + here) ** 2).sum())
