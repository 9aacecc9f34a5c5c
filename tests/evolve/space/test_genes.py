"""Genes: what a unit-cube coordinate means."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evolve.problems import format_place
from evolve.space.genes import ChoiceGene, RangeGene, find_genes, parse_gene


@given(st.floats(0, 1), st.floats(-10, 10), st.floats(0.01, 10))
def test_value_stays_in_the_range_and_unit_inverts_it_to_the_printed_digits(unit, low, width):
    gene = RangeGene(low=low, high=low + width)
    value = gene.value(unit)
    assert gene.low <= value <= gene.high
    assert math.isclose(gene.unit(value), unit, abs_tol=1e-5 * (abs(low) + width) / width)


def test_log_gene_has_its_geometric_mean_in_the_middle():
    assert RangeGene(low=0.01, high=100, log=True).value(0.5) == pytest.approx(1.0)


@given(st.floats(0, 1))
def test_steps_share_the_interval_equally_and_are_hit_exactly(unit):
    gene = RangeGene(low=8, high=12, step=2)
    assert gene.value(unit) == [8, 10, 12][min(int(unit * 3), 2)]
    assert isinstance(gene.value(unit), int)
    assert gene.value(gene.unit(10)) == 10


@given(st.floats(0, 1))
def test_choices_share_the_interval_equally(unit):
    gene = ChoiceGene(choices=("ties", "dare_ties", "linear"))
    assert gene.value(unit) == ("ties", "dare_ties", "linear")[min(int(unit * 3), 2)]
    assert gene.value(gene.unit("linear")) == "linear"


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "init": 2}, "init must lie in"),
        ({"low": 0, "high": 1, "log": True}, "log needs low above 0"),
        ({"low": 0, "high": float("inf")}, "finite"),
        ({"low": 0, "high": 1, "init": float("nan")}, "finite"),
        ({"low": 0, "high": 1, "sigma": float("inf")}, "finite"),
        ({"low": 0, "high": 1, "step": 1e-320}, "more than 1000000 values"),
        ({"low": 0, "high": 1e30, "step": 1}, "more than 1000000 values"),
        ({"low": 0, "high": 1, "layers": {"blocks": 0}}, "greater than or equal to 1"),
        ({"low": 0, "high": 1, "hihg": 2}, "not permitted"),
        ({"choices": ["a"]}, "at least 2"),
        ({"choices": [1, 0.5, True]}, "must differ"),
        ({"choices": [0, 0.0]}, "must differ"),
        ({"choices": ["a", "b"], "init": "c"}, "init must be one of"),
    ],
)
def test_contradictions_are_refused_with_their_reason(written, complaint):
    with pytest.raises(ValidationError, match=complaint):
        parse_gene(written)


def test_genes_are_found_in_the_order_of_the_file_with_their_places():
    template = {
        "models": [{"parameters": {"weight": {"low": 0, "high": 1}}}],
        "merge_method": {"choices": ["a", "b"]},
    }
    assert [format_place(path) for path, _ in find_genes(template)] == [
        "models[0].parameters.weight",
        "merge_method",
    ]
