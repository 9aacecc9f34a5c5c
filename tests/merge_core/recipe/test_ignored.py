"""Recipes as people have them: what mergekit passes over in silence is told in one line, and refused on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_core import MergeError, Recipe, merge, parse_recipes
from merge_core.recipe.ignored import ignored_warnings, refuse_ignored

SLICE = "slices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]"
LINEAR = "merge_method: linear, parameters: {weight: 1}"

# A recipe for each class of what people write where nothing reads it, and the line that tells it.
CLASSES = {
    "seed": (f"{{{LINEAR}, models: [{{model: a}}], random_seed: 0}}", 'unknown key "random_seed". It is an option'),
    "parameter at the top": (
        f"{{{LINEAR}, models: [{{model: a}}], normalize: true}}",
        'unknown key "normalize". It belongs under parameters.',
    ),
    "parameter beside the model": (
        f"{{{LINEAR}, models: [{{model: a, weight: 0.5}}, {{model: b, weight: 1}}]}}",
        'models[0]: (and 1 more) unknown key "weight". It belongs under parameters.',
    ),
    "misspelt key": (
        f"{{{LINEAR}, models: [{{model: a}}], dype: float32}}",
        'unknown key "dype". Did you mean "dtype"?',
    ),
    "parameter of another method at the top": (
        f"{{{LINEAR}, models: [{{model: a}}], select_topk: 0.1}}",
        'unknown key "select_topk". linear has no such parameter.',
    ),
    "int8_mask at the top": (f"{{{LINEAR}, models: [{{model: a}}], int8_mask: true}}", 'unknown key "int8_mask"'),
    "key of the recipe under parameters": (
        "{merge_method: linear, models: [{model: a}], parameters: {weight: 1, dtype: bfloat16}}",
        'parameters: unknown parameter "dtype" of linear. It belongs at the top level.',
    ),
    "parameter of no method": (
        "{merge_method: linear, models: [{model: a}], parameters: {weight: 1, int_space: cs}}",
        'parameters: unknown parameter "int_space" of linear.',
    ),
    "parameter of another method": (
        "{merge_method: linear, models: [{model: a, parameters: {density: 0.5}}], parameters: {weight: 1}}",
        'models[0].parameters: linear has no parameter "density".',
    ),
    "revision of a source": (
        f"{{{LINEAR}, slices: [{{sources: [{{model: a, revision: v2, layer_range: [0, 2]}}]}}]}}",
        'slices[0].sources[0]: unknown key "revision". Write it after the name: MODEL@REVISION.',
    ),
    "method of a slice": (f"{{{LINEAR}, {SLICE}, merge_method: slerp}}]}}", 'slices[0]: unknown key "merge_method"'),
    "filter without value": (
        f"{{{LINEAR}, {SLICE}, parameters: {{filter: mlp}}}}]}}",
        'slices[0].parameters: unknown parameter "filter"',
    ),
    "layers of a whole model": (
        f"{{{LINEAR}, models: [{{model: a, layer_range: [0, 2]}}]}}",
        'models[0]: unknown key "layer_range". It belongs to the sources of slices.',
    ),
    "key of a conditional value": (
        "{merge_method: linear, models: [{model: a}], parameters: {weight: [{value: 1, why: 2}]}}",
        'parameters.weight[0]: unknown key "why". Known: filter, value.',
    ),
    "key of a model map": (
        f"{{{LINEAR}, models: [{{model: {{model: {{path: a, branch: x}}}}}}]}}",
        'models[0].model.model: unknown key "branch". Known: path, revision.',
    ),
    "key of the tokenizer": (
        f"{{{LINEAR}, models: [{{model: a}}], tokenizer: {{source: base, pad: 8}}}}",
        'tokenizer: unknown key "pad".',
    ),
    "a model listed twice": (
        f"{{{LINEAR}, models: [{{model: a}}, {{model: b}}, {{model: a}}]}}",
        'models[2]: "a" is listed twice.',
    ),
    "the base alone": (
        "{merge_method: ties, base_model: a, models: [{model: a}], parameters: {weight: 1}}",
        'models: the base model is alone: ties leaves "a" as it is',
    ),
}


@pytest.mark.parametrize(("text", "expected"), CLASSES.values(), ids=CLASSES)
def test_what_has_no_effect_is_one_line_and_refused_when_strict(text: str, expected: str):
    recipes = parse_recipes(text)
    (line,) = ignored_warnings(recipes)
    assert line.startswith("ignored: recipe.yml: ")
    assert expected in line
    with pytest.raises(MergeError) as raised:
        refuse_ignored(recipes)
    message = expected.replace("(and 1 more) ", "")
    assert message in str(raised.value)
    # What is written back says only what has an effect.
    rewritten = parse_recipes(recipes[0].to_yaml())
    assert rewritten == recipes
    assert not rewritten[0].ignored or "alone" in expected


def test_a_sound_recipe_has_nothing_ignored():
    recipes = parse_recipes(
        f"{{merge_method: linear, {SLICE}}}], parameters: {{weight: 1, int8_mask: true}}, dtype: float32}}"
    )
    assert ignored_warnings(recipes) == ()
    refuse_ignored(recipes)


def test_what_is_no_file_that_people_have_is_read_strictly():
    with pytest.raises(MergeError, match='unknown key "dype"'):
        Recipe.from_mapping({"merge_method": "linear", "models": [{"model": "a"}], "dype": "float32"})


def test_a_value_that_no_parameter_has_is_a_mistake_also_where_it_is_not_read():
    with pytest.raises(MergeError, match=r'models\[0\].parameters: unknown parameter "dare" of linear'):
        parse_recipes("{merge_method: linear, models: [{model: a, parameters: {dare: {drop_rate: 0.9}}}]}")


def test_a_recipe_that_is_refused_tells_also_what_it_says_in_vain(zoo: Path):
    with pytest.raises(MergeError) as raised:
        parse_recipes("{merge_method: ties, models: [{model: a, weight: 1}]}")
    needs, ignored = map(str, raised.value.problems)
    assert "ties needs base_model" in needs
    assert 'models[0]: unknown key "weight". It belongs under parameters' in ignored
    # A weight that is missing is the one that stands where nothing reads it.
    with pytest.raises(MergeError, match="missing required parameter weight") as raised:
        merge(parse_recipes("{merge_method: linear, models: [{model: a, weight: 1}]}"), zoo / "out", relative_to=zoo)
    assert "It belongs under parameters" in str(raised.value)


def test_a_merge_says_what_it_ignored_and_refuses_it_when_strict(zoo: Path):
    recipe = zoo / "recipe.yml"
    recipe.write_text(f"{{{LINEAR}, models: [{{model: a}}], random_seed: 1}}")
    with pytest.raises(MergeError, match="random_seed"):
        merge(recipe, zoo / "out", strict=True)
    assert not (zoo / "out").exists()
    assert "random_seed" in merge(recipe, zoo / "out").warnings[0]


def test_a_model_listed_twice_counts_once_with_its_first_parameters(zoo: Path):
    """As in mergekit until 0.1.4; 0.1.5 refuses such recipes, of which many are published."""
    twice = (
        "{merge_method: linear, models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}},"
        " {model: a, parameters: {weight: 5}}]}"
    )
    once = "{merge_method: linear, models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}}]}"
    results = [merge(parse_recipes(text), zoo / name, relative_to=zoo) for text, name in ((twice, "x"), (once, "y"))]
    assert results[0].fingerprint == results[1].fingerprint


def test_different_layers_of_one_model_are_refused_in_one_slice():
    sources = "[{model: a, layer_range: [0, 2]}, {model: a, layer_range: [2, 4]}]"
    with pytest.raises(MergeError, match="different layers of one model"):
        parse_recipes(f"{{{LINEAR}, slices: [{{sources: {sources}}}]}}")


@pytest.mark.parametrize(
    "method", ["task_arithmetic", "ties", "dare_linear", "breadcrumbs_ties", "della", "sce", "ram"]
)
@pytest.mark.parametrize("form", ["models", "slices"])
def test_a_base_alone_is_what_comes_out(method: str, form: str, zoo: Path):
    listed = {"models": [{"model": "base"}]}
    if form == "slices":
        listed = {"slices": [{"sources": [{"model": "base", "layer_range": [0, 3]}]}]}
    recipe = {"merge_method": method, "base_model": "base", **listed, "parameters": {"scale": 0.5}}
    read = Recipe.from_mapping(recipe, lenient=True)
    result = merge(read, zoo / "out", relative_to=zoo)
    own, merged = (load_file(path / "model.safetensors") for path in (zoo / "base", result.path))
    assert all(torch.equal(merged[name], tensor) for name, tensor in own.items())


def test_a_base_written_as_a_map_is_the_model_of_that_name(zoo: Path):
    text = (
        "{{merge_method: ties, base_model: {base}, models: [{{model: base}}, {{model: a, parameters: {{weight: 1}}}}]}}"
    )
    results = [
        merge(parse_recipes(text.format(base=base)), zoo / name, relative_to=zoo).fingerprint
        for name, base in (("x", "base"), ("y", "{model: {path: base}}"))
    ]
    assert results[0] == results[1]


def test_mergekit_ignores_the_same(
    zoo: Path, run_mergekit: Callable[[dict[str, str], Path], dict[str, str | None]], tmp_path: Path
):
    refused = {"a model listed twice"}  # from 0.1.5 on
    cases = {name: text.replace("merge_method", "dtype: float32, merge_method") for name, (text, _) in CLASSES.items()}
    cases = {
        name.replace(" ", "-"): text.replace("layer_range: [0, 2]", "layer_range: [0, 3]")
        for name, text in cases.items()
    }
    cases.pop("key-of-the-tokenizer")  # the stand-ins have none
    errors = run_mergekit(cases, tmp_path)
    assert {name for name, error in errors.items() if error is not None} == {name.replace(" ", "-") for name in refused}
    for name, text in cases.items():
        if errors[name] is None:
            merge(parse_recipes(text), tmp_path / "ours" / name, relative_to=tmp_path)
            ours, theirs = (load_file(tmp_path / side / name / "model.safetensors") for side in ("ours", "mergekit"))
            for tensor, own in ours.items():
                torch.testing.assert_close(own, theirs[tensor], msg=f"{name}: {tensor}")
