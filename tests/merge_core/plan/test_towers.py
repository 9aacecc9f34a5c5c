"""Models with several towers are merged by module; what no module names is copied from the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import live_model, logits, model_class, save_pair

from merge_core import Checkpoint, LiveMerge, MergeError, Recipe, build_plan, live_parameters, merge
from merge_core.checkpoint.open_checkpoints import open_checkpoints

VISION, LANGUAGE, PROJECTOR = "vision_tower.", "language_model.", "multi_modal_projector."


def weighted(first: float, second: float) -> list[dict[str, Any]]:
    return [{"model": "a", "parameters": {"weight": first}}, {"model": "b", "parameters": {"weight": second}}]


def run(recipe: dict[str, Any], zoo: Path) -> tuple[Checkpoint, tuple[str, ...]]:
    result = merge(Recipe.from_mapping(recipe), zoo / "m", relative_to=zoo, overwrite=True)
    return Checkpoint.open(result.path), result.warnings


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return save_pair("llava", tmp_path)


def check(result: Checkpoint, zoo: Path, prefix: str, weight_of_b: float) -> None:
    """Every tensor of a module is ``(1 − w)·a + w·b``."""
    a, b = (Checkpoint.open(zoo / name) for name in "ab")
    names = [name for name in a.tensors if name.startswith(prefix)]
    assert names
    for name in names:
        torch.testing.assert_close(result.read(name), torch.lerp(a.read(name), b.read(name), weight_of_b))


def test_models_are_merged_with_all_their_towers(zoo: Path):
    result, warnings = run({"merge_method": "linear", "base_model": "b", "models": weighted(0.25, 0.75)}, zoo)
    for prefix in (LANGUAGE, VISION, PROJECTOR):
        check(result, zoo, prefix, 0.75)
    assert not warnings


def test_the_language_model_alone_is_merged_where_that_is_asked_for(zoo: Path):
    recipe = {"merge_method": "linear", "base_model": "b", "models": weighted(0.25, 0.75)}
    made = merge(Recipe.from_mapping(recipe), zoo / "m", relative_to=zoo, language_only=True)
    result = Checkpoint.open(made.path)
    check(result, zoo, LANGUAGE, 0.75)
    for prefix in (VISION, PROJECTOR):
        check(result, zoo, prefix, 1)
    assert "copied from" in made.warnings[0]
    again = merge(made.path / "mergekit_config.yml", zoo / "again", relative_to=zoo)
    assert again.fingerprint == made.fingerprint
    with pytest.raises(MergeError, match="modules: it names its modules"):
        merge(made.path / "mergekit_config.yml", zoo / "x", relative_to=zoo, language_only=True)


def test_towers_beside_a_stack_of_layers_are_copied_from_its_base(zoo: Path):
    slices = [
        {"sources": [{"model": model, "layer_range": [start, end]}]} for model, start, end in (("a", 0, 2), ("b", 1, 3))
    ]
    result, warnings = run({"merge_method": "passthrough", "slices": slices}, zoo)
    for prefix in (VISION, PROJECTOR):
        check(result, zoo, prefix, 0)
    assert warnings == (
        'multi_modal_projector, vision_tower: copied from "a". Name them under modules to merge them too',
    )


def test_a_tower_that_a_model_lacks_is_copied_from_the_base(zoo: Path):
    file = zoo / "a" / "model.safetensors"
    text = {name: tensor for name, tensor in load_file(file).items() if not name.startswith((VISION, PROJECTOR))}
    save_file(text, file, metadata={"format": "pt"})
    result, warnings = run({"merge_method": "linear", "base_model": "b", "models": weighted(0.25, 0.75)}, zoo)
    b = Checkpoint.open(zoo / "b")
    assert all(
        torch.equal(result.read(name), b.read(name)) for name in b.tensors if name.startswith((VISION, PROJECTOR))
    )
    assert "vision_tower" in warnings[0]


def test_filters_reach_towers_whose_layers_have_places_of_their_own(zoo: Path):
    value = [{"filter": VISION, "value": [0, 1]}, {"value": 0.5}]
    merged = {"merge_method": "slerp", "base_model": "a", "models": [{"model": "a"}, {"model": "b"}]}
    result, _ = run({**merged, "parameters": {"t": value}}, zoo)
    a, b = (Checkpoint.open(zoo / name) for name in "ab")
    vision = [name for name in a.tensors if name.startswith(VISION)]
    for layer, model in ((0, a), (1, b)):
        names = [name for name in vision if f"layers.{layer}." in name]
        assert names
        for name in names:
            torch.testing.assert_close(result.read(name), model.read(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("language", ["text_decoder", "language_model"])
def test_every_named_module_follows_its_own_recipe(zoo: Path, language: str):
    modules = {
        language: {"models": weighted(1, 3)},
        "vision_tower": {"models": weighted(1, 1)},
        "multi_modal_projector": {"models": weighted(0, 1)},
    }
    result, warnings = run({"merge_method": "linear", "base_model": "a", "modules": modules}, zoo)
    check(result, zoo, LANGUAGE, 0.75)
    check(result, zoo, VISION, 0.5)
    check(result, zoo, PROJECTOR, 1)
    assert not warnings


def test_a_module_without_the_language_model_leaves_it_as_it_is(zoo: Path):
    result, _ = run({"merge_method": "linear", "modules": {"vision_tower": {"models": weighted(1, 1)}}}, zoo)
    check(result, zoo, LANGUAGE, 0)
    check(result, zoo, VISION, 0.5)
    check(result, zoo, PROJECTOR, 0)


def test_parameters_of_a_module_stand_before_those_of_the_recipe(zoo: Path):
    models = [{"model": "a"}, {"model": "b"}]
    recipe = {
        "merge_method": "slerp",
        "base_model": "a",
        "modules": {
            "text_decoder": {"models": models, "parameters": {"t": [{"filter": "mlp", "value": 1}]}},
            "vision_tower": {"models": models},
        },
        "parameters": {"t": 0},
    }
    result, _ = run(recipe, zoo)
    check(result, zoo, VISION, 0)
    check(result, zoo, "language_model.model.layers.0.mlp", 1)
    check(result, zoo, "language_model.model.layers.0.self_attn", 0)


def test_gradients_run_over_the_layers_of_the_module(zoo: Path):
    modules = {"vision_tower": {"models": [{"model": "a"}, {"model": "b"}], "parameters": {"t": [0, 1]}}}
    result, _ = run({"merge_method": "slerp", "base_model": "a", "modules": modules}, zoo)
    check(result, zoo, "vision_tower.encoder.layers.0.", 0)
    check(result, zoo, "vision_tower.encoder.layers.1.", 1)


def test_slices_drop_layers_of_the_language_model_and_the_result_loads(zoo: Path):
    slices = [
        {"sources": [{"model": "a", "layer_range": [0, 1]}]},
        {"sources": [{"model": "b", "layer_range": [2, 3]}]},
    ]
    modules = {
        "text_decoder": {"slices": slices},
        "vision_tower": {"slices": [{"sources": [{"model": "b", "layer_range": [0, 2]}]}]},
    }
    recipe = Recipe.from_mapping({"merge_method": "passthrough", "modules": modules})
    result, _ = run({"merge_method": "passthrough", "modules": modules}, zoo)
    check(result, zoo, VISION, 1)
    model, info = model_class("llava").from_pretrained(zoo / "m", output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert model.config.text_config.num_hidden_layers == 2
    checkpoints = open_checkpoints(recipe.references(), zoo)
    live = live_model("llava", build_plan(recipe, checkpoints).config)
    LiveMerge(checkpoints).write(recipe, live_parameters(live))
    assert torch.equal(logits(live), logits(model))


def test_a_vision_tower_is_not_cut(zoo: Path):
    part = [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]
    with pytest.raises(MergeError, match=r"modules\.vision_tower: only whole modules are merged, of layers \[2\]"):
        run({"merge_method": "passthrough", "modules": {"vision_tower": {"slices": part}}}, zoo)


def test_an_unknown_module_is_named_with_those_there_are(zoo: Path):
    modules = {"vision_towr": {"models": weighted(1, 1)}}
    with pytest.raises(
        MergeError, match=r'no module "vision_towr"\. Did you mean "vision_tower"\? Its modules: text_d'
    ):
        run({"merge_method": "linear", "modules": modules}, zoo)


def test_a_module_that_a_model_lacks_is_named(zoo: Path, tmp_path: Path):
    save_pair("llama", tmp_path / "text")
    models = [{"model": "a", "parameters": {"weight": 1}}, {"model": "text/b", "parameters": {"weight": 1}}]
    with pytest.raises(MergeError, match=r'model "text/b" lacks vision_tower: '):
        run({"merge_method": "linear", "modules": {"vision_tower": {"models": models}}}, zoo)
    result, _ = run({"merge_method": "linear", "base_model": "a", "models": models}, zoo)
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    a, text = Checkpoint.open(zoo / "a"), Checkpoint.open(tmp_path / "text" / "b")
    torch.testing.assert_close(result.read(name), (a.read(name) + text.read(name.removeprefix(LANGUAGE))) / 2)


def test_a_model_with_one_tower_has_the_module_default(tmp_path: Path):
    zoo = save_pair("llama", tmp_path)
    result, _ = run({"merge_method": "linear", "modules": {"default": {"models": weighted(1, 1)}}}, zoo)
    check(result, zoo, "model.", 0.5)
