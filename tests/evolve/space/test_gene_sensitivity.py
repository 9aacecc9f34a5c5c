"""Genes and the parameters they set: what is told by four plans against what every gene does by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.space.gene_sensitivity import GeneSensitivity
from evolve.space.genome_space import GenomeDefinition, GenomeSpace
from evolve.space.recipe_space import RecipeSpace
from evolve.space.space import Space
from evolve.space.template import Template
from evolve.space.tensor_kinds import TensorKinds
from merge_core import ParameterSlot, Recipe
from merge_core.methods import METHODS
from merge_core.recipe.parameters import ParameterReader, layer_position
from merge_core.recipe.slices import output_slices

LAYERS = 4
KINDS = TensorKinds(("self_attn.q_proj", "embed_tokens", "mlp.up"), frozenset({"embed_tokens"}))
NAMES = ("self_attn.q_proj.weight", "mlp.up.weight")


def parameters_of(recipe: dict[str, Any]) -> dict[str, dict[ParameterSlot, float]]:
    """As a plan has them, for layers of two tensors and an embedding."""
    read = Recipe.from_mapping(recipe)
    method = METHODS[read.merge_method]
    found: dict[str, dict[ParameterSlot, float]] = {}
    slices = output_slices(read, LAYERS)
    layer = 0
    for number, part in enumerate(slices):
        places = [
            (f"model.layers.{layer + k}.{name}", layer_position(k, part.layer_count))
            for k in range(part.layer_count)
            for name in NAMES
        ]
        layer += part.layer_count
        if number == 0:
            places.append(("model.embed_tokens.weight", 0.0))
        for tensor, t in places:
            slots: dict[ParameterSlot, float] = {}
            for position, source in enumerate(part.sources):
                levels = [source.parameters, part.parameters, read.parameters]
                for name in {*method.names("model")} & {*method.differentiable}:
                    if str(source.model) != str(read.base_model):
                        reader = ParameterReader(method.by_name[name], levels, "m")
                        slots[ParameterSlot(name, position)] = reader.read(tensor, t)
            for name in {*method.names("global")} & {*method.differentiable}:
                levels = [part.parameters, read.parameters]
                slots[ParameterSlot(name)] = ParameterReader(method.by_name[name], levels, None).read(tensor, t)
            found[tensor] = {slot: float(value) for slot, value in slots.items() if value is not None}
    return found


def space_of(weight: Any, other: Any = 0.3, **parameters: Any) -> RecipeSpace:
    document = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": weight}},
            {"model": "b", "parameters": {"weight": other}},
        ],
    }
    if parameters:
        document["parameters"] = parameters
    return RecipeSpace.from_template(Template.read(document), LAYERS, KINDS)


GENE = {"low": -1.0, "high": 2.0}


def trimmed(density: Any) -> RecipeSpace:
    own = {"weight": GENE, "density": density}
    document = {"merge_method": "ties", "base_model": "base", "models": [{"model": "a", "parameters": own}]}
    return RecipeSpace.from_template(Template.read(document), LAYERS, KINDS)


@pytest.mark.parametrize(
    "space",
    [
        space_of(GENE),
        space_of({**GENE, "layers": "each"}, {**GENE, "layers": {"blocks": 2}}),
        space_of({**GENE, "layers": {"knots": 3}}, GENE),
        space_of({**GENE, "filters": ["self_attn"]}, {**GENE, "log": True, "low": 0.1}),
        space_of({**GENE, "layers": "each", "filters": "each_tensor"}, {**GENE, "filters": "each_tensor"}),
        space_of({**GENE, "name": "shared"}, {**GENE, "name": "shared"}),
        space_of(GENE, **{"lambda": {"low": 0.5, "high": 1.5}}),
        trimmed({"low": 0.0, "high": 1.0, "layers": "each", "filters": "each_tensor"}),
        trimmed({"low": 0.2, "high": 0.9, "layers": {"knots": 3}}),
        GenomeSpace(
            GenomeDefinition(models=("a", "b"), merge_method="task_arithmetic", base_model="base", layer_granularity=2),
            LAYERS,
        ),
        GenomeSpace(
            GenomeDefinition(models=("a", "b"), merge_method="linear", layer_granularity=2, smooth=True), LAYERS
        ),
    ],
    ids=[
        "one",
        "layers",
        "knots",
        "filters",
        "tensors",
        "shared",
        "lambda",
        "densities",
        "knots of densities",
        "genome",
        "smooth genome",
    ],
)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_gradients_are_those_of_genes_moved_one_by_one(space: Space, data: st.DataObject) -> None:
    count = len(space.coordinates)
    vector = data.draw(st.lists(st.floats(0.2, 0.8), min_size=count, max_size=count))
    sensitivity = GeneSensitivity.find(space, parameters_of, vector)
    assert sensitivity.genes == tuple(range(count))
    slots = [(output, slot) for output, found in parameters_of(space.decode(vector)).items() for slot in found]
    slopes = {slot: data.draw(st.floats(-2, 2)) for slot in slots}

    def loss(point: list[float]) -> float:
        found = parameters_of(space.decode(point))
        return sum(slope * found[output][slot] for (output, slot), slope in slopes.items())

    gradient = sensitivity.gradient(space, vector, slopes)
    step = 1e-2
    for number in range(count):
        up, down = list(vector), list(vector)
        up[number] += step
        down[number] -= step
        difference = (loss(up) - loss(down)) / (2 * step)
        assert gradient[number] == pytest.approx(difference, rel=2e-3, abs=2e-3)


def test_genes_that_are_no_differentiable_numbers_are_left_out() -> None:
    space = space_of({**GENE, "step": 0.5}, GENE)
    assert GeneSensitivity.find(space, parameters_of, [0.5, 0.5]).genes == (1,)
    assert GeneSensitivity.find(space, parameters_of, [0.5, 0.5]).gradient(space, [0.5, 0.5], {}) == [0.0, 0.0]


def test_interpolated_logits_are_no_parameters() -> None:
    definition = GenomeDefinition(models=("a", "b", "c"), merge_method="slerp")
    space = GenomeSpace(definition, LAYERS)
    assert GeneSensitivity.find(space, parameters_of, [0.6, 0.5, 0.4]).genes == ()


def test_a_kind_of_tensor_outside_the_layers_has_one_gene() -> None:
    space = space_of({**GENE, "layers": "each", "filters": "each_tensor"})
    names = [axis.name for axis in space.coordinates]
    assert names.count("weight[a].embed_tokens") == 1
    assert len(names) == 2 * LAYERS + 1
