"""The recipe language as data: what it accepts, what it says about mistakes, that it reads back what it writes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from merge_core import METHODS, MergeError, Problem, Recipe, dump_recipes, load_recipes, merge, parse_recipes
from merge_core.recipe.documents import order_documents
from merge_core.recipe.ignored import ignored_warnings


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(MergeError) as caught:
        parse_recipes(text, "recipe.yml")
    return tuple(map(str, caught.value.problems))


def test_every_mistake_of_a_document_is_in_one_error_with_its_place():
    problems = problems_of(
        """
        merge_method: tise
        base_modle: x
        models:
          - model: a
            parameters: {density: [0.1, high]}
          - parameters: {weight: 1}
        dtype: bf16
        """
    )
    text = "\n".join(problems)
    assert 'merge_method: unknown method "tise". Did you mean "ties"?' in text
    assert 'unknown key "base_modle". Did you mean "base_model"?' in text
    assert "models[1]: missing key model" in text
    assert 'dtype: expected one of float32, float16, bfloat16, got "bf16". Did you mean "bfloat16"?' in text
    assert all(problem.startswith("recipe.yml: ") for problem in problems)


def test_with_an_unknown_method_the_parameters_of_all_are_checked_and_missing_models_told(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "recipe.yml").write_text(
        """
        merge_method: tise
        base_model: ./there
        models:
          - {model: ./gone, parameters: {weight: heavy, density: 1.5, desnity: 0.3}}
        """
    )
    with pytest.raises(MergeError) as caught:
        merge(tmp_path / "recipe.yml", tmp_path / "out")
    told = str(caught.value)
    assert 'models[0].parameters.weight: expected a number, got "heavy"' in told
    assert "models[0].parameters.density: expected a number from 0 to 1, got 1.5" in told
    assert 'unknown parameter "desnity". Did you mean "density"?' in told
    assert 'model "./gone": no directory' in told
    assert '"./there"' not in told
    assert len(caught.value.problems) == 5


def test_of_very_many_models_that_are_not_there_the_first_are_told(tmp_path):
    models = "".join(f"- {{model: ./gone{number}, parameters: {{weight: 1}}}}\n" for number in range(3000))
    (tmp_path / "recipe.yml").write_text(f"merge_method: linear\nmodels:\n{models}")
    with pytest.raises(MergeError) as caught:
        merge(tmp_path / "recipe.yml", tmp_path / "out")
    assert "a list of 3000 entries" in str(caught.value)
    assert str(caught.value).count("no directory") == 20


def test_the_parameters_of_a_module_that_is_not_there_are_not_judged(tmp_path):
    told = problems_of("{merge_method: 'gone_module:merge', models: [{model: a, parameters: {weight: x, density: 7}}]}")
    assert len(told) == 1


def test_a_missing_base_model_is_not_shown_by_one_of_the_experts():
    (told,) = problems_of("{merge_method: ties, models: [{model: a, parameters: {weight: 1}}]}")
    assert told.endswith("Example: base_model: THE-MODEL-THEY-WERE-TRAINED-FROM")


def test_a_misspelt_parameter_is_told_with_the_nearest_one():
    (recipe,) = parse_recipes(
        "{merge_method: ties, base_model: b, models: [{model: a, parameters: {weight: 1, densty: 0.5}}]}"
    )
    message = 'models[0].parameters: unknown parameter "densty" of ties. Did you mean "density"?'
    assert ignored_warnings([recipe]) == (f"ignored: recipe.yml: {message}",)


def test_a_parameter_of_another_method_passes_because_published_recipes_carry_them():
    (recipe,) = parse_recipes(
        "{merge_method: linear, models: [{model: a, parameters: {weight: 1, density: 0.5}}],"
        " parameters: {int8_mask: true}}"
    )
    assert recipe.parameters.get("int8_mask") is not None


def test_yaml_1_1_habits_are_read():
    (recipe,) = parse_recipes(
        """
        merge_method: ram
        base_model: "/models/a b//c"   # spaces and double slashes stand on cards
        parameters:
          epsilon : 1e-5
        models:
          - model: "/models/a b//c"
          - model: d
        """
    )
    assert str(recipe.base_model) == "/models/a b//c"
    assert recipe.parameters.get("epsilon").entries[0].value == "1e-5"


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("dtype: torch.float32", "dtype: float32"),
        ("parameters: {weight: 1, normalize: 'no'}", "parameters: {weight: 1, normalize: false}"),
        ("parameters: {weight: 1, normalize: 'on'}", "parameters: {weight: 1, normalize: true}"),
        ("parameters: {weight: 1, normalize: '1'}", "parameters: {weight: 1, normalize: true}"),
        ("slices: []", "slices:"),
        ("slices: []", "modules: {}"),
    ],
)
def test_other_spellings_say_the_same(written: str, plain: str):
    """As mergekit reads them."""
    first, second = (
        parse_recipes(f"merge_method: linear\nmodels: [{{model: a}}]\n{text}") for text in (written, plain)
    )
    assert first == second


@pytest.mark.parametrize("ends", ["[0, 3]", "['0', '3']", "[0.0, 3.0]", "['0', 3.0]"])
def test_layer_ranges_are_whole_numbers_however_they_are_written(ends: str):
    (recipe,) = parse_recipes(f"{{merge_method: linear, slices: [{{sources: [{{model: a, layer_range: {ends}}}]}}]}}")
    assert recipe.slices is not None
    assert recipe.slices[0].sources[0].layer_range == (0, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("[1, 2", "not YAML"),
        ("{merge_method: linear, models: [{model: a}], parameters: {normalize: maybe}}", "expected true or false"),
        (
            "{merge_method: linear, models: [{model: a, parameters: {weight: 2020-13-45}}]}",
            'got "2020-13-45"',
        ),
        (
            "{merge_method: linear, models: [{model: a, parameters: {weight: 1" + "0" * 400 + "}}]}",
            "expected a finite number",
        ),
        ("just text", "expected a map"),
        ("{merge_method: linear}", "expected exactly one of models, slices, modules, got none of them"),
        (
            "{merge_method: linear, models: [{model: a}], slices: [{sources: [{model: a, layer_range: [0, 1]}]}]}",
            "got models and slices",
        ),
        ("{merge_method: linear, models: []}", "got none of them"),
        ("{merge_method: linear, slices: [{sources: []}]}", "at least one entry"),
        ("{base_model: a, experts: [{source_model: b}]}", "a file of mergekit-moe"),
        ("{merge_method: ties, models: [{model: a}]}", "ties needs base_model"),
        ("{merge_method: passthrough, models: [{model: a}, {model: b}]}", "takes exactly 1 model, got 2"),
        ("{merge_method: model_stock, base_model: b, models: [{model: a}]}", "at least 2 models besides the base"),
        ("{merge_method: linear, models: [{model: a, parameters: {weight: .nan}}]}", "finite"),
        ("{merge_method: linear, models: [{model: a, parameters: {weight: high}}]}", 'a number, got "high"'),
        ("{merge_method: linear, models: [{model: a, parameters: {weight: []}}]}", "empty list"),
        ("{merge_method: linear, models: [{model: a, parameters: {weight: [{filter: x}]}}]}", "missing key value"),
        ("{merge_method: linear, models: [{model: a, parameters: {weight: [" + "1, " * 2000 + "1]}}]}", "1 to 2000"),
        ("{merge_method: linear, models: [" + "{model: a}, " * 2000 + "{model: b}]}", "a list of 2001 entries"),
        ("{merge_method: linear, models: [{model: {model: {path: a, revision: 5}}}]}", 'Example: revision: "5"'),
        (
            "{merge_method: linear, models: [{model: a}], tokenizer: {source: a, pad_to_multiple_of: 100000000000}}",
            "expected a whole number from 1 to 65536",
        ),
        ("{merge_method: linear, models: [{model: a+b+c}]}", "more than one adapter"),
        ("{merge_method: linear, models: [{model: a@1@2}]}", "more than one @"),
        ("{merge_method: linear, models: [{model: ''}]}", "empty model name"),
        ("{merge_method: linear, slices: [{sources: [{model: a, layer_range: [4, 2]}]}]}", "0 <= first < end"),
        ("{merge_method: linear, slices: [{sources: [{model: a}]}]}", "expected two whole numbers"),
        (
            "{merge_method: linear, slices: [{sources: [{model: a, layer_range: [0, 2]},"
            " {model: b, layer_range: [0, 3]}]}]}",
            "as many layers, got a [0, 2], b [0, 3]",
        ),
        (
            "{merge_method: ties, base_model: b, slices: [{sources: [{model: a, layer_range: [0, 2]}]}]}",
            "Add {model: b, layer_range: [0, 2]}",
        ),
        (
            "{merge_method: linear, models: [{model: a}], tokenizer_source: base, tokenizer: {source: union}}",
            "excludes tokenizer",
        ),
    ],
)
def test_mistakes_are_named(text: str, expected: str):
    assert any(expected in problem for problem in problems_of(text))


def test_mistakes_of_all_documents_are_reported_together():
    problems = problems_of("{merge_method: linaer, models: [{model: a}]}\n---\n{merge_method: linear, modles: []}")
    assert any("document 1" in problem for problem in problems)
    assert any("document 2" in problem for problem in problems)


def test_the_whole_language_reads_back_as_it_was_written():
    document: dict[str, Any] = {
        "name": "x",
        "merge_method": "linear",
        "base_model": {"model": {"path": "a", "revision": "r"}, "lora": {"path": "l"}},
        "slices": [
            {
                "sources": [
                    {"model": "a@main+lora@v2", "layer_range": [0, 2], "parameters": {"weight": [0.1, 0.5]}},
                    {"model": "b", "layer_range": [2, 4]},
                ],
                "base_model": "b",
                "parameters": {"weight": [{"filter": "mlp", "value": [1, 0]}, {"value": 0.5}]},
                "residual_weight": 0.5,
            }
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
        "out_dtype": "bfloat16",
        "tokenizer": {
            "source": "union",
            "tokens": {
                "<a>": {"source": "b", "force": True},
                "<b>": {"source": {"kind": "model_token", "model": "b", "token_id": 3}},
                "<c>": {"source": {"kind": "zero"}},
            },
            "pad_to_multiple_of": 8,
        },
        "chat_template": "chatml",
    }
    recipe = Recipe.from_mapping(document)
    assert recipe.to_mapping() == document
    assert Recipe.from_mapping(yaml.safe_load(recipe.to_yaml())) == recipe


def test_modules_read_back_as_they_were_written():
    document = {
        "merge_method": "linear",
        "modules": {
            "text": {"models": [{"model": "a", "parameters": {"weight": 1}}], "parameters": {"normalize": True}},
            "vision": {"slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]},
        },
    }
    assert Recipe.from_mapping(document).to_mapping() == document


scalars = st.one_of(st.floats(-2, 2), st.integers(-3, 3))
values = st.one_of(scalars, st.lists(scalars, min_size=1, max_size=4))
settings = st.one_of(
    values,
    st.lists(
        st.fixed_dictionaries({"value": values}, optional={"filter": st.text("abm.*_", min_size=1, max_size=6)}),
        min_size=1,
        max_size=3,
    ),
)


@given(st.lists(settings, min_size=1, max_size=4), st.sampled_from(["linear", "task_arithmetic"]))
def test_any_weights_read_back_as_they_were_written(weights: list[Any], method: str):
    models = [{"model": f"m{index}", "parameters": {"weight": weight}} for index, weight in enumerate(weights)]
    recipe = Recipe.from_mapping({"merge_method": method, "base_model": "base", "models": models})
    (again,) = parse_recipes(dump_recipes((recipe,)))
    assert again == recipe
    assert hash(again) == hash(recipe)


def test_recipes_and_errors_survive_pickling_for_workers():
    recipe = Recipe.from_mapping({"merge_method": "passthrough", "models": [{"model": "a"}]})
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    error = MergeError("one", Problem(("models", 0), "two", "recipe.yml"))
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems
    assert str(again) == "one\nrecipe.yml: models[0]: two"


def test_references_are_listed_once_with_the_base_first():
    (recipe,) = parse_recipes(
        "{merge_method: ties, base_model: b, models: [{model: a}, {model: b}],"
        " tokenizer: {source: c, tokens: {x: {source: d}}}}"
    )
    assert [str(reference) for reference in recipe.references()] == ["b", "a", "c", "d"]


def document(name: str | None, *models: str) -> Recipe:
    mapping: dict[str, Any] = {"merge_method": "linear", "models": [{"model": model} for model in models]}
    return Recipe.from_mapping(mapping | ({} if name is None else {"name": name}))


def test_documents_run_after_those_they_use():
    final, second, first = document(None, "second", "x"), document("second", "first"), document("first", "y")
    assert order_documents([final, second, first]) == (first, second, final)


def test_when_all_documents_have_names_the_unused_one_is_the_result():
    assert order_documents([document("b", "a"), document("a", "x")])[-1].name == "b"


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([document("a", "b"), document("b", "a")], "circle: a -> b -> a"),
        ([document("a", "x"), document("a", "y")], "given twice"),
        ([document(None, "x"), document(None, "y")], "second document without name"),
        ([document("a", "x"), document("b", "y")], "several results: a, b"),
    ],
)
def test_documents_without_an_order_are_refused(documents: list[Recipe], expected: str):
    with pytest.raises(MergeError, match=expected):
        order_documents(documents)


def test_a_missing_file_is_one_clear_line(tmp_path: Path):
    with pytest.raises(MergeError, match="cannot be read"):
        load_recipes(tmp_path / "nowhere.yml")


def test_every_search_range_is_a_range_and_every_method_names_its_source():
    for method in METHODS.values():
        assert method.source.startswith("https://")
        for parameter in method.parameters:
            if parameter.search is not None:
                assert parameter.search.low < parameter.search.high
