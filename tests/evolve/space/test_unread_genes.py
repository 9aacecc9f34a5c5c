"""Genes that a merge method does not read: refused where none does, left out of the recipes of those that do not."""

from __future__ import annotations

import pytest

from evolve.config.reader import read_search
from evolve.problems import ConfigError
from evolve.space.recipe_space import RecipeSpace
from evolve.space.template import Template
from evolve.space.unread_genes import dead_genes, filters_of_nothing, partly_read
from merge_core import Recipe
from merge_core.plan.slice_context import SliceContext
from merge_core.recipe.slices import output_slices

GENE = {"low": 0.2, "high": 1.0}


def recipe(method, own=(), shared=(), base=()):
    return {
        "merge_method": method,
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": 0.5, **dict.fromkeys(own, GENE)}},
            {"model": "b", "parameters": {"weight": 0.5}},
            {"model": "base", "parameters": {"weight": 0.5, **dict.fromkeys(base, GENE)}},
        ],
        "parameters": dict.fromkeys(shared, GENE),
    }


def genes_of(document):
    template = Template.read(document)
    places = [setting.place for setting in template.settings if isinstance(setting.value, dict)]
    return template, dict.fromkeys(places)


@pytest.mark.parametrize(
    ("document", "dead"),
    [
        (recipe("linear", own=["density"]), ["density"]),
        (recipe("linear", own=["weight"]), []),
        (recipe("task_arithmetic", shared=["lambda", "density"]), ["density"]),
        (recipe("ties", own=["lambda"]), ["lambda"]),  # one holds for all models
        (recipe("ties", shared=["int8_mask"]), ["int8_mask"]),
        (recipe("ties", base=["weight"]), ["weight"]),  # a base has no task vector
        (recipe("linear", base=["weight"]), []),  # which it does not need here
        (recipe("ties", shared=["weight"]), ["weight"]),  # every model has one of its own
        (recipe({"choices": ["ties", "linear"]}, own=["density"], shared=["t"]), ["t"]),
    ],
)
def test_a_gene_that_no_method_reads_is_a_mistake(document, dead):
    template, genes = genes_of(document)
    assert [problem.place[-1] for problem in dead_genes(template, genes)] == dead


@pytest.mark.parametrize("method", ["linear", "ties", "task_arithmetic", "dare_linear", "della", "breadcrumbs"])
@pytest.mark.parametrize("name", ["weight", "density", "gamma", "epsilon", "lambda", "normalize", "int8_mask"])
@pytest.mark.parametrize("where", ["own", "shared", "base"])
def test_what_is_called_dead_is_what_no_plan_of_a_merge_depends_on(method, name, where):
    document = recipe(method, **{where: [name]})
    template, genes = genes_of(document)

    def read_at(value):
        at = {**document, "parameters": dict(document["parameters"])}
        at["models"] = [{**entry, "parameters": dict(entry["parameters"])} for entry in at["models"]]
        for part in (at, *at["models"]):
            part["parameters"] = {key: value if was == GENE else was for key, was in part["parameters"].items()}
        read = Recipe.from_mapping(at)
        (context,) = (SliceContext(read, part) for part in output_slices(read, 0))
        return context.inputs(["x"] * len(context.models), 0.0), context.settings("x", 0.0)

    changes = read_at(0.0) != read_at(1.0)
    assert bool(list(dead_genes(template, genes))) == (not changes)


def test_genes_that_share_a_value_are_alive_where_one_of_them_is():
    document = recipe("ties", own=["weight"], base=["weight"])
    template, genes = genes_of(document)
    assert list(dead_genes(template, dict.fromkeys(genes, "shared"))) == []
    assert len(list(dead_genes(template, genes))) == 1


def test_a_recipe_leaves_out_what_its_own_method_does_not_read():
    document = recipe({"choices": ["ties", "linear"]}, own=["density"])
    document["models"][1]["parameters"]["density"] = [{"filter": "mlp", "value": GENE}, {"value": 0.5}]
    document["models"][0]["parameters"]["epsilon"] = {**GENE, "layers": {"blocks": 2}}
    space = RecipeSpace.from_template(Template.read(document), 2)
    ties, linear = (space.decode([unit] + [0.5] * (len(space.coordinates) - 1)) for unit in (0.1, 0.9))
    assert (ties["merge_method"], linear["merge_method"]) == ("ties", "linear")
    assert ties["models"][0]["parameters"] == {"weight": 0.5, "density": 0.6}
    assert ties["models"][1]["parameters"]["density"] == [{"filter": "mlp", "value": 0.6}, {"value": 0.5}]
    assert linear == {**recipe("linear"), "parameters": {}}  # not in slices either, without a value that differs


def test_genes_that_some_methods_read_are_told_in_one_line():
    template, genes = genes_of(recipe({"choices": ["ties", "dare_ties", "linear"]}, own=["weight", "density"]))
    line = partly_read(template, genes)
    assert "density: only by ties and dare_ties" in line
    assert "weight" not in line
    assert partly_read(*genes_of(recipe("ties", own=["density"]))) is None


def test_the_reader_of_a_search_says_where_and_what_to_do(tmp_path):
    file = tmp_path / "search.yml"
    file.write_text(
        "recipe:\n  merge_method: linear\n  models:\n"
        "    - model: a\n      parameters:\n        weight: {low: 0, high: 1}\n        density: {low: 0, high: 1}\n"
        "    - model: b\n      parameters: {weight: 1.0}\n"
        "tasks: [{perplexity: text.txt}]\n"
    )
    read = read_search(file)
    with pytest.raises(ConfigError) as error:
        raise ConfigError(*map(read.document.located, read.problems))
    (line,) = [text for text in str(error.value).splitlines() if "density" in text]
    assert "search.yml:7" in line
    assert "linear does not read density" in line
    assert "Remove it, or use a method that reads it, such as ties" in line


@pytest.mark.parametrize(
    ("filters", "dead"),
    [
        (["self_attn", "mlp"], []),
        (["self_atn", "mlp"], [0]),
        (["mlp", "mlp.up_proj"], [1]),  # the first that fits decides
        (["mlp.up_proj", "mlp"], []),
        (["", "mlp"], [1]),
        ("each_tensor", []),
    ],
)
def test_a_filter_that_decides_for_no_tensor_is_a_mistake(filters, dead):
    document = recipe("linear")
    document["models"][0]["parameters"]["weight"] = {**GENE, "filters": filters}
    tensors = [f"model.layers.0.{name}.weight" for name in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")]
    problems = filters_of_nothing(Template.read(document), tensors)
    assert [problem.place for problem in problems] == [
        ("models", 0, "parameters", "weight", "filters", index) for index in dead
    ]
