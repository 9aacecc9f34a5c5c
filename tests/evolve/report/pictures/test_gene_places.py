"""Genes by what they are for, read from their names."""

from __future__ import annotations

import pytest

from evolve.report.pictures.gene_places import ALL, GeneGrid, GenePlace, mean_genes
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds


def names_of(gene):
    space = RecipeSpace.from_template(
        Template.read(
            {
                "merge_method": "linear",
                "models": [{"model": "some/expert", "parameters": {"weight": gene}}, {"model": "b"}],
            }
        ),
        layer_count=4,
        kinds=TensorKinds(("self_attn.q_proj", "mlp.up_proj", "embed_tokens"), frozenset({"embed_tokens"})),
    )
    return [axis.name for axis in space.coordinates]


@pytest.mark.parametrize(
    ("gene", "rows", "columns"),
    [
        ({}, 1, (ALL,)),
        ({"layers": "each"}, 1, ("0", "1", "2", "3")),
        ({"layers": {"blocks": 2}}, 1, ("0", "1", "2", "3")),
        ({"layers": {"knots": 2}}, 1, ("knot 0", "knot 1")),
        ({"filters": ["self_attn", "mlp"]}, 3, (ALL,)),
        ({"layers": "each", "filters": "each_tensor"}, 3, ("0", "1", "2", "3", ALL)),
        ({"layers": "each", "name": "shared"}, 1, ("0", "1", "2", "3")),
    ],
    ids=["one", "each", "blocks", "knots", "filters", "tensors", "named"],
)
def test_every_gene_of_a_space_has_its_place(gene, rows, columns):
    names = names_of({"low": 0, "high": 1, **gene})
    grid = GeneGrid.of(dict.fromkeys(names, 0.5))
    assert (len(grid.rows), grid.columns) == (rows, columns)
    cells = sum(len(GenePlace.of(name).columns) for name in names)
    assert sum(value is not None for row in grid.values for value in row) == cells


def test_the_model_and_the_kind_of_tensor_name_the_row():
    (name,) = [
        name for name in names_of({"low": 0, "high": 1, "filters": ["mlp"], "layers": {"blocks": 1}}) if "mlp" in name
    ]
    assert GenePlace.of(name).row == "weight expert mlp"


def test_choices_and_booleans_have_no_place_among_numbers():
    assert GeneGrid.of({"merge_method": "ties", "normalize": True, "weight[a]": 1}).rows == ("weight a",)


def test_the_mean_is_of_genes_that_all_have():
    assert mean_genes([{"a": 1, "b": 2.0, "c": "x"}, {"a": 3, "c": "y"}]) == {"a": 2.0}
    assert mean_genes([]) == {}
