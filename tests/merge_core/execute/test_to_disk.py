"""From recipe file to a model directory that loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from merge_core import Checkpoint, MergeError, fingerprint, load_recipes, merge, parse_recipes
from merge_core.execute.model_card import model_card

MakeModel = Callable[..., Path]

LINEAR = """
# comments stand everywhere
merge_method: linear
models:
  - model: a
    parameters: {weight: 0.25}
  - model: b
    parameters: {weight: 0.75}
dtype: bfloat16
"""


def write_recipe(directory: Path, text: str) -> Path:
    (directory / "recipe.yml").write_text(text)
    return directory / "recipe.yml"


def test_a_merge_loads_with_no_missing_or_unexpected_keys_and_runs(zoo: Path):
    result = merge(write_recipe(zoo, LINEAR), zoo / "merged")
    model, info = AutoModelForCausalLM.from_pretrained(result.path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()
    read = load_file(result.path / "model.safetensors")
    a, b = (load_file(zoo / name / "model.safetensors") for name in "ab")
    for name, tensor in read.items():
        assert torch.equal(tensor, (a[name] * 0.25 + b[name] * 0.75).to(torch.bfloat16)) or torch.allclose(
            tensor.float(), a[name] * 0.25 + b[name] * 0.75, rtol=2**-8
        )


def test_the_fingerprint_is_that_of_the_saved_files(zoo: Path):
    result = merge(write_recipe(zoo, LINEAR), zoo / "merged", shard_bytes=5000)
    checkpoint = Checkpoint.open(result.path)
    names = list(checkpoint.tensors)
    assert len(list(result.path.glob("model-*.safetensors"))) > 1
    assert fingerprint((name, checkpoint.read(name)) for name in reversed(names)) == result.fingerprint
    assert result.tensors == len(names)


def test_the_same_recipe_and_seed_give_the_same_bytes_with_any_number_of_threads(zoo: Path):
    (recipe,) = parse_recipes(
        "{merge_method: dare_ties, base_model: base, models: [{model: a, parameters: {weight: 0.5, density: 0.4}},"
        " {model: b, parameters: {weight: 0.6, density: 0.7}}]}"
    )
    threads = torch.get_num_threads()
    try:
        prints = []
        for count in (1, 2):
            torch.set_num_threads(count)
            prints.append(merge(recipe, zoo / f"m{count}", relative_to=zoo).fingerprint)
    finally:
        torch.set_num_threads(threads)
    assert prints[0] == prints[1]
    assert merge(recipe, zoo / "other", relative_to=zoo, seed=1).fingerprint != prints[0]


def test_inserted_layers_that_add_nothing_leave_the_logits_as_they_were(zoo: Path):
    nothing = {"scale": [{"filter": "o_proj", "value": 0.0}, {"filter": "down_proj", "value": 0.0}, {"value": 1.0}]}
    slices = [{"sources": [{"model": "a", "layer_range": [0, 3]}]}]
    slices += [{"sources": [{"model": "a", "layer_range": [2, 3], "parameters": nothing}]}] * 2
    (recipe,) = parse_recipes(yaml.safe_dump({"merge_method": "passthrough", "slices": slices}))
    result = merge(recipe, zoo / "deeper", relative_to=zoo)
    deeper = AutoModelForCausalLM.from_pretrained(result.path)
    assert deeper.config.num_hidden_layers == 5
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(deeper(tokens).logits, AutoModelForCausalLM.from_pretrained(zoo / "a")(tokens).logits)


def test_side_files_come_from_the_base_and_the_recipe_reads_back(zoo: Path):
    for name in ("base", "a"):
        for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
            (zoo / name / file).write_text(json.dumps({"from": name}))
    path = write_recipe(zoo, "{merge_method: ties, base_model: base, models: [{model: a, parameters: {weight: 1}}]}")
    result = merge(path, zoo / "merged")
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert json.loads((result.path / file).read_text()) == {"from": "base"}
    assert load_recipes(result.path / "mergekit_config.yml") == load_recipes(path)


def test_the_card_has_a_front_matter_that_names_hub_models_only():
    recipes = parse_recipes(
        "{merge_method: ties, base_model: org/base, models: [{model: org/tuned}, {model: /local/one}]}"
    )
    card = model_card(recipes, "merged")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": ["org/base", "org/tuned"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["mergekit", "merge"],
    }
    assert "[TIES](https://arxiv.org/abs/2306.01708)" in body
    assert "* [org/tuned](https://huggingface.co/org/tuned)\n* one" in body
    block = body.split("```yaml\n")[1].split("```")[0]
    assert parse_recipes(block.replace("model: one", "model: /local/one")) == recipes


def test_the_card_calls_models_of_this_machine_by_as_much_of_their_paths_as_tells_them_apart():
    models = "[{model: /home/me/a_/base}, {model: /home/me/b/base+/home/me/lora}]"
    card = model_card(parse_recipes(f"merge_method: linear\nmodels: {models}\nparameters: {{weight: 1}}"), "merged")
    assert "/home" not in card
    assert "* a_/base\n* b/base+lora\n" in card
    assert "- model: a_/base\n- model: b/base+lora\n" in card


def test_the_card_of_several_documents_tells_every_step_with_its_base():
    first = "{name: half, merge_method: ties, base_model: org/old, models: [{model: org/a}, {model: org/b}]}"
    last = "{merge_method: slerp, base_model: half, models: [{model: half}, {model: org/c}], parameters: {t: 0.5}}"
    card = model_card(parse_recipes(f"{first}\n---\n{last}"), "merged")
    steps = card.split("## Merge method\n\n")[1].split("\n\n## ")[0]
    assert "1. `half`: [TIES](https://arxiv.org/abs/2306.01708) with [org/old](https://huggingface.co/org/old)" in steps
    assert "of [org/a](https://huggingface.co/org/a), [org/b](https://huggingface.co/org/b)\n2. the result" in steps
    assert "with `half` as the base, of [org/c]" in steps
    assert "* [org/old](https://huggingface.co/org/old) (base)\n* [org/a]" in card


def test_the_card_tells_which_layers_are_whose_where_they_differ():
    slices = [(0, 1), (1, 2), (1, 3)]
    sources = [f"{{sources: [{{model: org/a, layer_range: [{low}, {high}]}}]}}" for low, high in slices]
    recipe = f"{{merge_method: passthrough, slices: [{', '.join(sources)}]}}"
    layers = model_card(parse_recipes(recipe), "merged").split("## Layers\n\n")[1].split("\n\n")[0]
    assert layers.splitlines()[2:] == ["| 0 to 1 | org/a 0 to 1 |", "| 2 to 3 | org/a 1 to 2 |"]
    in_order = recipe.replace(f", {sources[2]}", "")
    assert "## Layers" not in model_card(parse_recipes(in_order), "merged")
    tower = f"{{merge_method: passthrough, modules: {{text: {{slices: [{', '.join(sources)}]}}}}}}"
    assert "| text 2 to 3 | org/a 1 to 2 |" in model_card(parse_recipes(tower), "merged")


def test_the_card_does_not_count_a_model_that_only_lends_its_tokenizer():
    recipe = "{merge_method: linear, models: [{model: org/a, parameters: {weight: 1}}], tokenizer_source: org/other}"
    card = model_card(parse_recipes(recipe), "merged")
    assert "Only tokenizer or tokens are taken from [org/other](https://huggingface.co/org/other)." in card
    assert "* [org/other]" not in card


def test_the_card_says_the_licences_of_the_models_and_that_they_differ(zoo: Path):
    for name, licence in {"a": "cc-by-nc-4.0", "b": "mit"}.items():
        (zoo / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    card = (merge(write_recipe(zoo, LINEAR), zoo / "all").path / "README.md").read_text()
    assert "| a | cc-by-nc-4.0 |\n| b | mit |\n\n**The licences differ.**" in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other"
    (zoo / "a" / "README.md").unlink()
    card = (merge(zoo / "recipe.yml", zoo / "one").path / "README.md").read_text()
    assert "| a | not stated |" in card
    assert "Of some models the licence is not known." in card
    assert "license" not in yaml.safe_load(card.split("---\n")[1])


def test_documents_run_in_order_and_intermediates_are_removed(zoo: Path):
    text = """
merge_method: linear
models:
  - {model: half, parameters: {weight: 1}}
  - {model: c, parameters: {weight: 1}}
---
name: half
merge_method: linear
models:
  - {model: a, parameters: {weight: 1}}
  - {model: b, parameters: {weight: 1}}
"""
    before = set(zoo.iterdir())
    result = merge(write_recipe(zoo, text), zoo / "merged")
    assert set(zoo.iterdir()) - before == {zoo / "recipe.yml", zoo / "merged"}
    tensors = {name: load_file(zoo / name / "model.safetensors") for name in "abc"}
    for name, tensor in load_file(result.path / "model.safetensors").items():
        expected = (tensors["a"][name] + tensors["b"][name]) / 4 + tensors["c"][name] / 2
        torch.testing.assert_close(tensor, expected)
    assert len(load_recipes(result.path / "mergekit_config.yml")) == 2


def test_kept_intermediates_are_used_again_until_a_model_changes(zoo: Path, make_model: MakeModel):
    text = """
{name: half, merge_method: linear, models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]}
---
{merge_method: linear, models: [{model: half, parameters: {weight: 1}}, {model: c, parameters: {weight: 1}}]}
"""
    path = write_recipe(zoo, text)
    first = merge(path, zoo / "merged", keep_intermediates=True)
    (kept,) = zoo.glob(".intermediates-*")
    weights = kept / "model.safetensors"
    written = weights.stat().st_mtime_ns
    again = merge(path, zoo / "merged", overwrite=True)
    assert (again.fingerprint, weights.stat().st_mtime_ns) == (first.fingerprint, written)
    make_model("a", seed=9)
    changed = merge(path, zoo / "merged", overwrite=True, keep_intermediates=True)
    assert changed.fingerprint != first.fingerprint
    assert len(list(zoo.glob(".intermediates-*"))) == 2


@pytest.mark.parametrize(
    ("output", "lost"),
    [
        (".", "the working directory"),
        ("a", 'model "a"'),
        ("./recipes/../nowhere/../a", 'model "a"'),
        ("recipes", "the recipe"),
    ],
)
def test_overwriting_does_not_delete_what_the_user_needs(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, output: str, lost: str
):
    monkeypatch.chdir(zoo)
    (zoo / "recipes").mkdir()
    path = write_recipe(zoo, LINEAR).rename(zoo / "recipes" / "recipe.yml")
    before = sorted(zoo.rglob("*"))
    with pytest.raises(MergeError, match=f"{lost} would be deleted"):
        merge(path, output, relative_to=zoo, overwrite=True)
    assert sorted(zoo.rglob("*")) == before


@pytest.mark.parametrize("output", ["adapter", "link", "tokenizer", "stand-in"])
def test_adapters_tokenizers_and_stand_ins_are_kept_though_made_here(zoo: Path, output: str):
    for name in ("adapter", "tokenizer", "stand-in"):
        merge(write_recipe(zoo, LINEAR), zoo / name)
    (zoo / "link").symlink_to(zoo / "adapter")
    before = {path: path.is_file() and path.read_bytes() for path in zoo.rglob("*")}
    text = """
merge_method: linear
models: [{model: a+link, parameters: {weight: 1}}, {model: org/absent, parameters: {weight: 1}}]
tokenizer: {source: tokenizer}
"""
    with pytest.raises(MergeError, match=r"would be deleted with it|is not a directory"):
        merge(write_recipe(zoo, text), zoo / output, overwrite=True, models={"org/absent": zoo / "stand-in"})
    (zoo / "recipe.yml").write_text(LINEAR)
    assert {path: path.is_file() and path.read_bytes() for path in zoo.rglob("*")} == before


def test_the_model_in_a_run_is_kept_where_the_run_stands_for_it(zoo: Path):
    merge(write_recipe(zoo, LINEAR), zoo / "run" / "model")
    text = "{merge_method: linear, models: [{model: run, parameters: {weight: 1}}]}"
    with pytest.raises(MergeError, match='model "run" would be deleted with it'):
        merge(write_recipe(zoo, text), zoo / "run" / "model", overwrite=True)


def test_only_a_model_that_was_made_here_is_overwritten(zoo: Path, make_model: MakeModel):
    make_model("someone's", seed=3)
    with pytest.raises(MergeError, match="someone's: evolve did not make it"):
        merge(write_recipe(zoo, LINEAR), zoo / "someone's", overwrite=True)
    first = merge(write_recipe(zoo, LINEAR), zoo / "ours")
    again = merge(write_recipe(zoo, LINEAR), zoo / "ours", overwrite=True)
    assert again.fingerprint == first.fingerprint


def test_an_intermediate_does_not_take_the_place_of_what_someone_else_made(zoo: Path):
    text = "{name: half, merge_method: linear, models: [{model: a, parameters: {weight: 1}}]}\n---\n"
    path = write_recipe(zoo, text + "{merge_method: linear, models: [{model: half, parameters: {weight: 1}}]}")
    diary = zoo / "kept" / "half" / "diary.txt"
    diary.parent.mkdir(parents=True)
    diary.write_text("mine")
    with pytest.raises(MergeError, match="half: exists and is not empty"):
        merge(path, zoo / "m", intermediates=zoo / "kept", overwrite=True)
    assert diary.read_text() == "mine"


def test_a_result_without_config_is_not_written(zoo: Path):
    (zoo / "a" / "config.json").unlink()
    with pytest.raises(MergeError, match=r"a: config\.json is missing or empty"):
        merge(write_recipe(zoo, LINEAR), zoo / "m")
    assert not (zoo / "m").exists()


def test_a_model_is_made_anew_from_the_recipe_beside_it(zoo: Path):
    first = merge(write_recipe(zoo, LINEAR), zoo / "m")
    again = merge(first.path / "mergekit_config.yml", first.path, relative_to=zoo, overwrite=True)
    assert again.fingerprint == first.fingerprint


def test_all_models_that_cannot_be_found_are_named_together(zoo: Path):
    with pytest.raises(MergeError) as caught:
        merge(write_recipe(zoo, LINEAR.replace("model: a", "model: ./x").replace("model: b", "model: ./y")), zoo / "m")
    assert len(caught.value.problems) == 2


def test_an_error_half_way_leaves_no_directory(zoo: Path):
    Checkpoint.open(zoo / "b")
    tensors = load_file(zoo / "b" / "model.safetensors")
    tensors["model.norm.weight"][0] = float("inf")
    from safetensors.torch import save_file

    save_file(tensors, zoo / "b" / "model.safetensors", metadata={"format": "pt"})
    before = set(zoo.iterdir())
    with pytest.raises(MergeError, match=r'"b": tensor model\.norm\.weight has NaN or infinite'):
        merge(write_recipe(zoo, LINEAR), zoo / "merged")
    assert set(zoo.iterdir()) - before == {zoo / "recipe.yml"}


def test_an_output_that_exists_is_refused_before_any_work(zoo: Path):
    with pytest.raises(MergeError, match="exists and is not empty"):
        merge(write_recipe(zoo, LINEAR), zoo / "a")
    assert (zoo / "a" / "model.safetensors").exists()


def test_models_can_stand_in_for_references(zoo: Path):
    text = LINEAR.replace("model: a", "model: org/one").replace("model: b", "model: org/two")
    stand_ins = {"org/one": zoo / "a", "org/two": zoo / "b"}
    result = merge(write_recipe(zoo, text), zoo / "merged", models=stand_ins)
    assert result.fingerprint == merge(write_recipe(zoo, LINEAR), zoo / "direct").fingerprint


def test_progress_counts_every_tensor(zoo: Path):
    seen: list[tuple[int, int, str]] = []
    result = merge(write_recipe(zoo, LINEAR), zoo / "merged", progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == list(range(1, result.tensors + 1))
