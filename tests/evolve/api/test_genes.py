"""Genes as objects say what their mappings say, and refuse what these refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import evolve
from evolve.api.genes import plain
from evolve.problems import ConfigError
from evolve.space.genes import find_genes, parse_gene


def test_a_gene_becomes_the_mapping_that_a_file_would_hold():
    recipe = {"models": [{"parameters": {"weight": evolve.gene(0, 1.2, layers="each", filters=["mlp"])}}]}
    written = plain(recipe)
    assert written == {
        "models": [{"parameters": {"weight": {"low": 0.0, "high": 1.2, "layers": "each", "filters": ["mlp"]}}}]
    }
    ((path, node),) = find_genes(written)
    assert parse_gene(node, path).layers == "each"


def test_layer_groups_and_a_low_of_zero_are_kept():
    assert plain(evolve.gene(0, 1, layers={"blocks": 4}, init=0.0)) == {
        "low": 0.0,
        "high": 1.0,
        "layers": {"blocks": 4},
        "init": 0.0,
    }


def test_arrays_and_numbers_of_numpy_become_plain_ones():
    written = plain({"weight": np.linspace(0, 1, 3), "rows": np.eye(2, dtype=int), "t": np.float32(0.5)})
    assert written == {"weight": [0.0, 0.5, 1.0], "rows": [[1, 0], [0, 1]], "t": 0.5}
    assert type(written["t"]) is float


def test_a_choice_becomes_a_mapping_with_choices():
    assert plain(evolve.choice("ties", "dare_ties", init="ties")) == {"choices": ["ties", "dare_ties"], "init": "ties"}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: evolve.gene(1, 0), "gene: low must be below high, got low 1 and high 0"),
        (lambda: evolve.gene(0, 1, layers={"block": 2}), "gene.layers.*block"),
        (lambda: evolve.choice("ties"), "choice.choices"),
    ],
    ids=["bounds", "layers", "one choice"],
)
def test_a_gene_that_means_nothing_is_refused_where_it_is_made(made, told):
    with pytest.raises(ConfigError, match=told):
        made()


def test_paths_and_numbers_of_numpy_are_plain():
    assert plain({"model": Path("a/b"), "weight": np.float64(0.5), "range": (0, 2)}) == {
        "model": "a/b",
        "weight": 0.5,
        "range": [0, 2],
    }


def test_dtypes_are_their_names():
    assert plain({"dtype": torch.bfloat16, "weight": torch.tensor(0.5)}) == {"dtype": "torch.bfloat16", "weight": 0.5}


@pytest.mark.parametrize("value", [{0.5}, 1j, object(), print, evolve.Callback, b"a"])
def test_what_no_file_could_hold_is_refused_at_its_place(value):
    with pytest.raises(ConfigError, match=r"models\[1\].weight: expected text, numbers, lists and mappings"):
        plain({"models": [{}, {"weight": value}]})


def test_a_recipe_inside_itself_is_refused():
    recipe = {}
    recipe["recipe"] = [recipe]
    with pytest.raises(ConfigError, match="nested more than"):
        plain(recipe)


def test_importing_the_package_imports_no_engine_and_no_part_of_it():
    code = (
        "import sys, evolve; dir(evolve);"
        "heavy = ('torch', 'optuna', 'pydantic', 'evolve.');"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_that_is_offered_is_there():
    for name in evolve.__all__:
        assert getattr(evolve, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        evolve.optimise  # noqa: B018
