"""Genes by what they are for, read from their names."""

from __future__ import annotations

import pytest

from evolve.report.pictures.gene_places import ALL, GenePlace, bounds_reached, gene_rows, mean_genes, numbers
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
    found, across = gene_rows(names)
    assert (len(found), tuple(across)) == (rows, columns)
    assert sum(len(row.genes) for row in found) == sum(len(GenePlace.read(name).columns) for name in names)


def test_the_model_and_the_kind_of_tensor_name_the_row():
    (name,) = [
        name for name in names_of({"low": 0, "high": 1, "filters": ["mlp"], "layers": {"blocks": 1}}) if "mlp" in name
    ]
    place = GenePlace.read(name)
    assert (place.of, place.part, place.group) == ("weight expert", "mlp", "MLP")
    assert str(place) == "weight expert mlp, layers 0 to 3"


def test_choices_and_booleans_have_no_place_among_numbers():
    assert numbers({"merge_method": "ties", "normalize": True, "weight[a]": 1}) == {"weight[a]": 1.0}


def test_rows_of_a_model_stand_together_as_attention_mlp_norms_and_embeddings():
    parts = ["embed_tokens", "post_attention_layernorm", "mlp.up_proj", "self_attn.q_proj", "conv"]
    rows, _ = gene_rows([f"weight[{model}].{part}" for part in parts for model in "ab"])
    groups = ["attention", "MLP", "norms", "embeddings", "other"]
    assert [(row.of, row.group) for row in rows] == [(f"weight {model}", group) for model in "ab" for group in groups]


def test_a_gene_at_an_end_of_its_range_is_told_from_one_near_it():
    ranges = dict.fromkeys("abcd", (-0.5, 1.5))
    reached = bounds_reached({"a": 1.499, "b": -0.5, "c": 1.45, "d": 0.0, "unknown": 1.0}, ranges)
    assert reached == {"a": "high", "b": "low"}
    assert bounds_reached({"a": 1.0}, {"a": (1.0, 1.0)}) == {}


def test_the_mean_is_of_genes_that_all_have():
    assert mean_genes([{"a": 1, "b": 2.0, "c": "x"}, {"a": 3, "c": "y"}]) == {"a": 2.0}
    assert mean_genes([]) == {}
