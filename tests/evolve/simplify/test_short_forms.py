"""Which tensors share a number: losses against least squares by hand, what is planted is found, filters mean it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.simplify.long_recipe import Cell, Site, count_numbers
from evolve.simplify.metric import Metric
from evolve.simplify.short_forms import ShortForm, short_forms
from merge_core import ParameterSlot

LAYERS = 11
KINDS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "input_layernorm")
TENSORS = [f"model.layers.{layer}.{kind}.weight" for layer in range(LAYERS) for kind in KINDS]
TENSORS += ["model.embed_tokens.weight", "model.norm.weight"]


def site(number: int, value: Any, moved: Any = lambda tensor: 1.0, high: float = 2.0) -> Site:
    slot = ParameterSlot("weight", number)
    cells = tuple(Cell(tensor, slot, tensor, value(tensor), moved(tensor)) for tensor in TENSORS)
    return Site(("models", number, "parameters", "weight"), -high / 2, high, cells)


def forms_of(*sites: Site, gradients: Any = (), most: int = 12) -> list[ShortForm]:
    moved = [cell.moved for own in sites for cell in own.cells]
    return list(short_forms(sites, Metric.of([gradients], moved), most))


def written(site: Site, form: ShortForm, number: int = 0) -> list[float]:
    """What a recipe with this form sets at every tensor, read as recipes are read."""
    setting = form.settings([site])[site.place] if number == 0 else None
    entries = setting if isinstance(setting, list) else [{"value": setting}]
    return [next(one["value"] for one in entries if one.get("filter", "") in cell.tensor) for cell in site.cells]


def attention_apart(tensor: str) -> float:
    return 0.9 if "self_attn" in tensor else 0.2


def test_what_is_planted_is_found() -> None:
    first, second, *_ = forms_of(site(0, attention_apart), site(1, lambda tensor: 0.5))
    assert (first.numbers, second.numbers) == (2, 3)
    assert second.filters == (("self_attn", None), (None,))
    assert second.values == ((0.9, 0.2), (0.5,))
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
        assert any(heavy.startswith(str(word)) or str(word) in f"mlp.{heavy}" for word in form.filters[0][:-1])


def test_numbers_that_make_up_for_one_another_may_move_together() -> None:
    """A loss that knows the sum of two models' numbers alone loses nothing where their sum stays."""
    sites = [site(0, lambda tensor: 0.6), site(1, lambda tensor: 0.2)]
    names = [cell.tensor for own in sites for cell in own.cells]
    gradients = [[1.0 if name == wanted else 0.0 for name in names] for wanted in TENSORS]
    uneven = [site(0, lambda tensor: 0.8 if "mlp" in tensor else 0.6), site(1, lambda t: 0.0 if "mlp" in t else 0.2)]
    together = forms_of(*uneven, gradients=gradients)[0]
    assert sum(map(sum, together.values)) == pytest.approx(0.8, abs=0.02)


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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_losses_are_those_of_least_squares_and_fall_with_every_number(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sites = [site(number, lambda tensor: float(generator.uniform(-1, 2)), high=100.0) for number in range(2)]
    cells = [cell for own in sites for cell in own.cells]
    gradients = generator.normal(size=(7, len(cells)))
    metric = Metric.of([gradients.tolist()], [1.0] * len(cells))
    forms = forms_of(*sites, gradients=gradients.tolist(), most=9)
    assert [form.numbers for form in forms] == list(range(2, 10))
    values = np.array([cell.value for cell in cells])
    root = np.concatenate([metric.rows, np.diag(np.sqrt(metric.prior))])
    for form, after in itertools.pairwise([*forms, None]) if len(forms) > 1 else ():
        assert form is not None
        short = np.concatenate([_at(own, filters, numbers) for own, filters, numbers in _parts(sites, form)])
        assert form.loss == pytest.approx(float(((root @ (short - values)) ** 2).sum()), rel=1e-6)
        best = _least_squares(sites, form, root, values)
        assert best - 1e-9 <= form.loss <= 1.05 * best
        assert after is None or _least_squares(sites, after, root, values) <= best + 1e-9


def test_numbers_are_round_and_stay_in_their_range() -> None:
    form = forms_of(site(0, lambda tensor: 1.0 / 3 if "mlp" in tensor else 1.9999))[1]
    assert set(form.values[0]) == {0.33, 2.0}
    sites = [site(0, lambda tensor: 2.0), site(1, lambda tensor: 2.0 if "mlp" in tensor else 0.0)]
    both = [[1.0] * (2 * len(TENSORS)), [1.0] * len(TENSORS) + [0.0] * len(TENSORS)]
    for form in forms_of(*sites, gradients=both):
        assert all(-1.0 <= value <= 2.0 for values in form.values for value in values)


def test_numbers_are_counted_in_parameters_alone() -> None:
    recipe = {
        "slices": [
            {"sources": [{"layer_range": [0, 4], "parameters": {"weight": [0.1, {"filter": "a", "value": 2}]}}]}
        ],
        "parameters": {"lambda": 0.5, "normalize": True},
    }
    assert count_numbers(recipe) == 3


def _parts(sites: Any, form: ShortForm) -> Any:
    return zip(sites, form.filters, form.values, strict=True)


def _at(own: Site, filters: Any, numbers: Any) -> np.ndarray[Any, Any]:
    found = []
    for cell in own.cells:
        found.append(next(n for word, n in zip(filters, numbers, strict=True) if word is None or word in cell.tensor))
    return np.array(found)


def _least_squares(sites: Any, form: ShortForm, root: Any, values: Any) -> float:
    """The least loss of the form's groups, by numpy's own solver."""
    columns = []
    first = 0
    for own, filters, _ in _parts(sites, form):
        group = _at(own, filters, range(len(filters)))
        for number in range(len(filters)):
            column = np.zeros(len(values))
            column[first : first + len(group)] = group == number
            columns.append(column)
        first += len(group)
    matrix = np.stack(columns, axis=1)
    numbers = np.linalg.lstsq(root @ matrix, root @ values, rcond=None)[0]
    return float(((root @ (matrix @ numbers - values)) ** 2).sum())
