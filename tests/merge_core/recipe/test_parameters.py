"""Scalars, gradients, filters and precedence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_core import METHODS, MergeError, Recipe
from merge_core.recipe.parameters import ParameterReader, interpolate, layer_position
from merge_core.recipe.parts import Parameters

WEIGHT = METHODS["linear"].by_name["weight"]
NORMALIZE = METHODS["linear"].by_name["normalize"]


def parameters(**values: Any) -> Parameters:
    recipe = Recipe.from_mapping({"merge_method": "linear", "models": [{"model": "a"}], "parameters": values})
    return recipe.parameters


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.floats(0, 1))
def test_a_gradient_is_piecewise_linear(gradient: list[float], t: float):
    knots = np.linspace(0, 1, len(gradient)) if len(gradient) > 1 else np.array([0.0])
    assert interpolate(gradient, t) == pytest.approx(np.interp(t, knots, gradient), abs=1e-9)


def test_a_list_of_flags_picks_the_one_below():
    assert [interpolate([True, False, True], t) for t in (0, 0.49, 0.5, 0.99, 1)] == [True, True, False, False, True]


def test_layers_are_spread_over_zero_to_one_and_a_single_layer_is_at_one():
    assert [layer_position(layer, 5) for layer in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert layer_position(0, 1) == 1.0


def test_the_first_matching_filter_decides():
    reader = ParameterReader(
        WEIGHT,
        [
            parameters(
                weight=[
                    {"filter": "mlp.up", "value": 0.1},
                    {"filter": "mlp", "value": [0, 1]},
                    {"filter": "*", "value": 0.3},
                    {"value": 9},
                ]
            )
        ],
        "a",
    )
    assert reader.read("layers.0.mlp.up_proj", 0.5) == 0.1
    assert reader.read("layers.0.mlp.down_proj", 0.5) == 0.5
    assert reader.read("layers.0.self_attn.q_proj", 0.5) == 0.3


def test_a_level_without_match_asks_the_next_level_then_the_default():
    source = parameters(weight=[{"filter": "mlp", "value": 0.1}])
    assert ParameterReader(WEIGHT, [source, parameters(weight=0.7)], "a").read("self_attn", 0) == 0.7
    assert ParameterReader(NORMALIZE, [Parameters(), Parameters()], None).read("x", 0) is True
    only_mlp = parameters(normalize=[{"filter": "mlp", "value": False}])
    assert ParameterReader(NORMALIZE, [only_mlp], None).read("self_attn", 0) is True
    assert ParameterReader(NORMALIZE, [only_mlp], None).read("mlp", 0) is False


def test_a_required_parameter_without_value_names_tensor_model_and_parameter():
    reader = ParameterReader(WEIGHT, [parameters(weight=[{"filter": "mlp", "value": 1}])], "org/name")
    with pytest.raises(MergeError, match=r'"org/name": missing required parameter weight for self_attn'):
        reader.read("self_attn", 0)


@pytest.mark.parametrize(("written", "read"), [("1e-5", 1e-5), (True, 1.0), ("0.5", 0.5), (1, 1.0)])
def test_numbers_are_read_however_yaml_gave_them(written: Any, read: float):
    value = ParameterReader(WEIGHT, [parameters(weight=written)], "a").read("x", 0)
    assert value == read
    assert isinstance(value, float)
