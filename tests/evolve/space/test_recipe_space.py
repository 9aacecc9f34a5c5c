"""A search space is a recipe with ranges in it."""

from __future__ import annotations

import pytest
import yaml

from evolve.problems import ConfigError
from evolve.space.recipe_space import RecipeSpace
from evolve.space.space import gene_values
from evolve.space.template import Template
from merge_core import Recipe, documents_of
from merge_core.plan.slice_context import SliceContext
from merge_core.recipe.parameters import layer_position


def template(weight, method="task_arithmetic", **extra):
    return {
        "merge_method": method,
        "base_model": "zoo/base",
        "models": [
            {"model": "zoo/a", "parameters": {"weight": weight}},
            {"model": "zoo/b", "parameters": {"weight": 0.5}},
        ],
        "dtype": "bfloat16",
        **extra,
    }


@pytest.mark.parametrize(
    "other",
    [
        {"low": 0, "high": 2, "name": "both"},
        {"choices": [0, 1], "name": "both"},
        {"low": 0, "high": 1, "layers": "each", "name": "both"},
    ],
)
def test_genes_that_share_a_value_are_the_same(other):
    written = template({"low": 0, "high": 1, "name": "both"})
    written["models"][1]["parameters"]["weight"] = other
    with pytest.raises(ConfigError, match=r"models\[1\].parameters.weight: shares its value with models\[0\]"):
        RecipeSpace.from_template(Template.read(written), 4)


def test_more_knots_than_layers_are_refused_since_some_would_change_nothing():
    written = template({"low": 0, "high": 1, "layers": {"knots": 5}})
    with pytest.raises(ConfigError, match="use at most 4"):
        RecipeSpace.from_template(Template.read(written), 4)


def test_plain_gene_is_replaced_by_its_value_and_nothing_else_changes():
    written = template({"low": 0, "high": 2})
    space = RecipeSpace.from_template(Template.read(written), layer_count=4)
    assert space.decode([0.25]) == template(0.5)
    assert written == template({"low": 0, "high": 2})
    assert space.coordinates[0].name == "weight[a]"


def test_filters_make_a_gene_each_and_one_for_the_rest():
    space = RecipeSpace.from_template(
        Template.read(template({"low": 0, "high": 1, "filters": ["self_attn", "mlp"]})), 4
    )
    weight = space.decode([0.1, 0.2, 0.3])["models"][0]["parameters"]["weight"]
    assert weight == [{"filter": "self_attn", "value": 0.1}, {"filter": "mlp", "value": 0.2}, {"value": 0.3}]


def test_knots_are_emitted_as_a_gradient():
    space = RecipeSpace.from_template(Template.read(template({"low": 0, "high": 1, "layers": {"knots": 3}})), 4)
    assert space.decode([0.1, 0.2, 0.3])["models"][0]["parameters"]["weight"] == [0.1, 0.2, 0.3]


def test_blocks_are_emitted_as_slices_that_cover_all_layers_once():
    space = RecipeSpace.from_template(Template.read(template({"low": 0, "high": 1, "layers": {"blocks": 3}})), 7)
    recipe = space.decode([0.1, 0.2, 0.3])
    assert "models" not in recipe
    ranges = [part["sources"][0]["layer_range"] for part in recipe["slices"]]
    assert ranges == [[0, 2], [2, 4], [4, 7]]
    assert [part["sources"][0]["parameters"]["weight"] for part in recipe["slices"]] == [0.1, 0.2, 0.3]
    assert all(part["sources"][1]["parameters"]["weight"] == 0.5 for part in recipe["slices"])
    assert all(
        part["sources"][2] == {"model": "zoo/base", "layer_range": layers}
        for part, layers in zip(recipe["slices"], ranges, strict=True)
    )


def test_each_makes_a_gene_per_layer():
    space = RecipeSpace.from_template(Template.read(template({"low": 0, "high": 1, "layers": "each"})), 5)
    assert len(space.coordinates) == 5
    assert len(space.decode([0.5] * 5)["slices"]) == 5


def test_gradients_keep_their_value_at_every_layer_when_a_recipe_is_cut_into_slices():
    written = template({"low": 0, "high": 1, "layers": {"blocks": 2}})
    written["models"][1]["parameters"]["weight"] = [0.0, 1.0]
    recipe = Recipe.from_mapping(RecipeSpace.from_template(Template.read(written), 4).decode([0.1, 0.9]))
    contexts = [(SliceContext(recipe, part), part.layer_count) for part in recipe.slices]
    layers = [(context, layer_position(layer, count)) for context, count in contexts for layer in range(count)]
    values = [dict(context.inputs(["x"] * 3, position)[1].parameters)["weight"] for context, position in layers]
    assert values == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_shared_gene_over_blocks_moves_into_the_slices_and_constants_stay():
    written = template(1.0, parameters={"lambda": {"low": 0, "high": 1, "layers": {"blocks": 2}}, "normalize": False})
    recipe = RecipeSpace.from_template(Template.read(written), 4).decode([0.25, 0.75])
    assert [part["parameters"] for part in recipe["slices"]] == [{"lambda": 0.25}, {"lambda": 0.75}]
    assert recipe["parameters"] == {"normalize": False}


def test_genes_of_one_name_share_their_value():
    written = template({"low": 0, "high": 1, "name": "both"})
    written["models"][1]["parameters"]["weight"] = {"low": 0, "high": 1, "name": "both"}
    space = RecipeSpace.from_template(Template.read(written), 4)
    assert len(space.coordinates) == 1
    recipe = space.decode([0.3])
    assert [entry["parameters"]["weight"] for entry in recipe["models"]] == [0.3, 0.3]


def test_an_anchor_in_the_file_makes_genes_of_its_own_at_every_place():
    text = """
    merge_method: linear
    models:
      - model: a
        parameters: &genes {weight: {low: 0, high: 1, layers: {blocks: 2}}}
      - {model: b, parameters: *genes}
    """
    space = RecipeSpace.from_template(Template.read(yaml.safe_load(text)), 2)
    recipe = space.decode([0.1, 0.2, 0.3, 0.4])
    weights = [[source["parameters"]["weight"] for source in part["sources"]] for part in recipe["slices"]]
    assert weights == [[0.1, 0.3], [0.2, 0.4]]


def test_methods_models_and_layer_ranges_can_be_genes():
    space = RecipeSpace.from_template(
        Template.read(
            {
                "merge_method": "passthrough",
                "slices": [
                    {
                        "sources": [
                            {
                                "model": {"choices": ["a", "b"]},
                                "layer_range": [0, {"low": 2, "high": 4}],
                            }
                        ]
                    },
                ],
            }
        ),
        4,
    )
    recipe = space.decode([0.9, 0.5])
    assert recipe["slices"][0]["sources"][0] == {"model": "b", "layer_range": [0, 3]}
    assert space.models == ("a", "b")


def test_start_prefers_init_then_the_best_reference_then_the_middle():
    written = template({"low": 0, "high": 2, "layers": {"blocks": 2}}, method="ties")
    written["models"][0]["parameters"]["density"] = {"low": 0, "high": 1}
    written["models"][1]["parameters"]["weight"] = {"low": 0, "high": 1, "init": 0.25}
    space = RecipeSpace.from_template(Template.read(written), 4)
    assert space.start({"zoo/a": 1.0}) == [0.5, 0.5, 0.5, 0.25]
    assert space.start({"zoo/b": 1.0})[:2] == [0.0, 0.0]


def test_t_of_slerp_starts_at_the_end_where_the_better_parent_is():
    written = {
        "merge_method": "slerp",
        "base_model": "a",
        "models": [{"model": "a"}, {"model": "b"}],
        "parameters": {"t": {"low": 0, "high": 1}},
    }
    space = RecipeSpace.from_template(Template.read(written), 4)
    assert space.start({"a": 1.0}) == [0.0]
    assert space.start({"b": 1.0}) == [1.0]


def test_gene_names_stay_unique_when_two_models_end_in_the_same_word():
    written = template({"low": 0, "high": 1})
    written["models"][1] = {"model": "other/a", "parameters": {"weight": {"low": 0, "high": 1}}}
    space = RecipeSpace.from_template(Template.read(written), 4)
    assert list(gene_values(space, [0, 1])) == ["weight[zoo/a]", "weight[other/a]"]


def test_more_blocks_than_layers_are_refused_with_the_place():
    with pytest.raises(ValueError, match=r"models\[0\].parameters.weight.*blocks is 9.*4 layers"):
        RecipeSpace.from_template(Template.read(template({"low": 0, "high": 1, "layers": {"blocks": 9}})), 4)


def test_a_model_that_only_lends_its_tokenizer_is_no_parent():
    written = template(
        1.0, tokenizer={"source": "zoo/c", "tokens": {"<t>": {"source": "zoo/d"}, "<u>": {"source": "zoo/a"}}}
    )
    read = Template.read(written)
    assert read.models == ("zoo/a", "zoo/b", "zoo/base")
    assert [model for model in read.places if model not in read.models] == ["zoo/c", "zoo/d"]
    assert read.places["zoo/d"] == ("tokenizer", "tokens", "<t>", "source")


def test_models_are_listed_once_in_the_order_of_the_file():
    assert Template.read(template(1.0)).models == ("zoo/a", "zoo/b", "zoo/base")


SLICES_OF_GENES = [{"sources": [{"model": "a", "layer_range": [0, {"low": 2, "high": 6}]}]}]


def test_a_choice_of_a_parameter_for_each_group_of_layers_is_in_its_slice():
    density = {"choices": [0.3, 0.9], "layers": {"blocks": 2}}
    normalize = {"choices": [True, False], "layers": "each"}
    models = [{"model": name, "parameters": {"weight": 0.5, "density": density}} for name in ("zoo/a", "zoo/b")]
    written = template(0.5, method="ties", models=models, parameters={"normalize": normalize})
    space = RecipeSpace.from_template(Template.read(written), 4)
    names = [axis.name for axis in space.coordinates]
    assert len(names) == 2 * 2 + 4
    values = {name: False if "normalize" in name else 0.3 for name in names}
    values |= {"density[b].layers2-3": 0.9, "normalize.layers0-0": True}
    recipe = Recipe.from_mapping(space.recipe_of([values[name] for name in names]))
    found = [
        (
            part.sources[0].layer_range,
            [source.parameters.to_mapping().get("density") for source in part.sources],
            part.parameters.to_mapping()["normalize"],
        )
        for part in recipe.slices
    ]
    assert [one for one in found if one[0] == (0, 1)] == [((0, 1), [0.3, 0.3, None], True)]
    assert [one for one in found if one[0] == (3, 4)] == [((3, 4), [0.3, 0.9, None], False)]


class TestMethodByLayers:
    """A choice of merge_method per group of layers."""

    def space(self, layers=6, **changes):
        weights = {"weight": {"low": 0, "high": 1}, "density": {"low": 0.1, "high": 1}}
        document = {
            "merge_method": {"choices": ["ties", "linear"], "layers": {"blocks": 3}},
            "base_model": "base",
            "models": [{"model": name, "parameters": weights} for name in ("a", "b")],
            "dtype": "bfloat16",
            **changes,
        }
        document = {key: value for key, value in document.items() if value is not None}
        return RecipeSpace.from_template(Template.read(document), layer_count=layers)

    def at(self, space, *methods: float):
        names = [axis.name for axis in space.coordinates]
        vector = [0.5] * len(names)
        for group, unit in enumerate(methods):
            vector[names.index(f"merge_method.layers{2 * group}-{2 * group + 1}")] = unit
        return vector

    def test_one_method_for_all_layers_is_a_plain_recipe(self):
        space = self.space()
        recipe = space.decode(self.at(space, 0.1, 0.1, 0.1))
        assert recipe["merge_method"] == "ties"
        assert "slices" not in recipe

    def test_several_are_documents_that_the_last_stacks(self):
        space = self.space()
        documents = space.decode(self.at(space, 0.9, 0.1, 0.1))["documents"]
        assert [(one.get("name"), one["merge_method"]) for one in documents] == [
            ("by_linear", "linear"),
            ("by_ties", "ties"),
            (None, "passthrough"),
        ]
        assert [part["sources"][0] for part in documents[-1]["slices"]] == [
            {"model": "by_linear", "layer_range": [0, 2]},
            {"model": "by_ties", "layer_range": [2, 6]},
        ]
        assert all("density" not in entry["parameters"] for entry in documents[0]["models"]), "linear reads none"
        assert all("density" in entry["parameters"] for entry in documents[1]["models"])

    def test_genes_that_no_method_in_use_reads_are_inactive(self):
        space = self.space()
        names = [axis.name for axis in space.coordinates]
        linear = {names[number] for number in space.inactive(self.at(space, 0.9, 0.9, 0.9))}
        assert linear == {"density[a]", "density[b]"}
        assert not space.inactive(self.at(space, 0.9, 0.1, 0.9))

    def test_slices_have_methods_by_the_layers_of_the_result(self):
        def part(low, high):
            weights = {"weight": {"low": 0, "high": 1}, "density": 0.5}
            entries = [{"model": name, "parameters": weights, "layer_range": [low, high]} for name in ("a", "b")]
            return {"sources": [*entries, {"model": "base", "layer_range": [low, high]}]}

        space = self.space(models=None, slices=[part(0, 4), part(2, 4)])
        assert [axis.name for axis in space.coordinates if axis.name.startswith("merge_method")] == [
            "merge_method.layers0-1",
            "merge_method.layers2-3",
            "merge_method.layers4-5",
        ]
        documents = documents_of(space.decode(self.at(space, 0.1, 0.1, 0.9)))
        layers = [[part.sources[0].layer_range for part in document.slices] for document in documents]
        assert layers == [[(0, 4), (2, 4)], [(0, 4), (2, 4)], [(0, 4), (4, 6)]]

    def test_documents_have_names_that_no_model_has(self):
        weights = {"weight": {"low": 0, "high": 1}}
        models = [{"model": name, "parameters": weights} for name in ("a", "by_ties")]
        space = self.space(models=models)
        documents = space.decode(self.at(space, 0.9, 0.1, 0.1))["documents"]
        assert {one.get("name") for one in documents} == {"by_linear", "by_ties_", None}

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"models": None, "slices": SLICES_OF_GENES}, "whose layer ranges are no genes"),
            ({"models": None, "modules": {"text": {"models": [{"model": "a"}]}}}, "needs a recipe of models"),
            ({"merge_method": {"choices": ["ties", "linear"], "layers": {"blocks": 9}}}, "have 6 layers"),
            (
                {"merge_method": "ties", "dtype": {"choices": ["bfloat16", "float16"], "layers": "each"}},
                "belong to merge parameters",
            ),
        ],
    )
    def test_what_makes_no_sense_is_told(self, changes, said):
        with pytest.raises(ConfigError, match=said):
            self.space(**changes)
