"""Every decoder that transformers knows is merged, saved, loaded and merged live, without a table of architectures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import (
    FAMILIES,
    FORMS,
    NAMED,
    UNSTACKABLE,
    VISION_FAMILIES,
    live_model,
    logits,
    model_class,
    new_model,
    save_pair,
)
from transformers import PreTrainedModel

from merge_core import (
    Checkpoint,
    LiveMerge,
    MergeError,
    MergePlan,
    Recipe,
    build_plan,
    live_fingerprint,
    live_parameters,
    merge,
    open_checkpoints,
)

COPY = {"merge_method": "passthrough", "models": [{"model": "a"}]}
LINEAR = {
    "merge_method": "linear",
    "models": [{"model": "a", "parameters": {"weight": 0.25}}, {"model": "b", "parameters": {"weight": 0.75}}],
}


def stack(*parts: tuple[str, int, int]) -> dict[str, Any]:
    slices = [{"sources": [{"model": model, "layer_range": [start, end]}]} for model, start, end in parts]
    return {"merge_method": "passthrough", "slices": slices}


SAYS_OF_LAYERS = {"layer_types", "layers_block_type", "first_k_dense_replace"}
"""In a config, what each layer is: all else of other families is the same with fewer layers as with more."""
REPEAT, DROP = stack(("a", 0, 2), ("b", 1, 3)), stack(("a", 0, 1), ("b", 2, 3))


def plan_of(recipe: dict[str, Any], directory: Path) -> MergePlan:
    parsed = Recipe.from_mapping(recipe)
    return build_plan(parsed, open_checkpoints(parsed.references(), directory))


def check_saved_and_live(family: str, recipe: dict[str, Any], directory: Path, output: Path) -> PreTrainedModel:
    """Merges a recipe to disk and into a live model; both have the same weights and logits. Returns the saved one."""
    parsed = Recipe.from_mapping(recipe)
    saved = merge(parsed, output, relative_to=directory, overwrite=True, shard_bytes=30_000)
    model, info = model_class(family).from_pretrained(output, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    checkpoints = open_checkpoints(parsed.references(), directory)
    live = live_model(family, build_plan(parsed, checkpoints).config)
    report = LiveMerge(checkpoints).write(parsed, live_parameters(live))
    assert live_fingerprint(report.plan, live_parameters(live)) == saved.fingerprint
    close(logits(live), logits(model))
    return model


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal weights give equal logits but for the last bit, which a matrix product owes to where its memory begins."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, *VISION_FAMILIES])
def test_a_family_is_merged_stacked_saved_loaded_and_merged_live(family: str, tmp_path: Path):
    zoo = save_pair(family, tmp_path)
    copy = check_saved_and_live(family, COPY, zoo, tmp_path / "m")
    original = model_class(family).from_pretrained(zoo / "a")
    copied, expected = copy.state_dict(), original.state_dict()
    assert copied.keys() == expected.keys()
    assert all(torch.equal(copied[name], tensor) for name, tensor in expected.items())
    close(logits(copy), logits(original))
    merged = check_saved_and_live(family, LINEAR, zoo, tmp_path / "m")
    assert not torch.allclose(logits(merged), logits(copy), rtol=0, atol=1e-3)
    fewer = [(DROP, 2)] if family == "llama" or SAYS_OF_LAYERS & FAMILIES.get(family, {}).keys() else []
    for recipe, count in () if family in UNSTACKABLE else ((REPEAT, 4), *fewer):
        check_saved_and_live(family, recipe, zoo, tmp_path / "m")
        names = Checkpoint.open(tmp_path / "m").tensors
        layers = {name for name in names if not name.startswith(("vis", "model.vis"))}
        assert len({name.split(".")[index] for name in layers for index in [_layer_index(name)] if index}) == count


def _layer_index(name: str) -> int:
    return next((index for index, part in enumerate(name.split(".")) if part.isdigit()), 0)


def test_layers_with_embeddings_of_their_own_outside_of_them_are_not_stacked(tmp_path: Path):
    zoo = save_pair("gemma4_text", tmp_path)
    with pytest.raises(MergeError, match=r"embed_tokens_per_layer\.weight .* a part for every layer"):
        plan_of(DROP, zoo)


@pytest.mark.parametrize("family", NAMED)
def test_pickled_and_sharded_checkpoints_merge_as_single_safetensors_do(family: str, tmp_path: Path):
    expected = merge(Recipe.from_mapping(LINEAR), tmp_path / "m", relative_to=save_pair(family, tmp_path / "single"))
    for form in FORMS[1:]:
        zoo = save_pair(family, tmp_path / form, form=form)
        files = [file for file in (zoo / "a").iterdir() if file.suffix in (".bin", ".safetensors")]
        assert (len(files) > 1) == form.startswith("sharded")
        found = merge(Recipe.from_mapping(LINEAR), tmp_path / "m", relative_to=zoo, overwrite=True)
        assert found.fingerprint == expected.fingerprint, form


def rename(directory: Path, old: str, new: str) -> None:
    file = directory / "model.safetensors"
    tensors = {name.replace(old, new, 1): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "old", "new"),
    [
        ("gpt2", "transformer.", ""),
        ("gpt_neox", "embed_out.", "lm_head."),
        ("gemma3", "language_model.model.", "model.language_model."),
        ("qwen2_vl", "model.", "model.language_model."),
        ("llava", "vision_tower.", "model.vision_tower.vision_model."),
    ],
)
def test_names_of_an_older_or_newer_release_are_the_same_model(family: str, old: str, new: str, tmp_path: Path):
    zoo = save_pair(family, tmp_path)
    recipe = {**LINEAR, "base_model": "a"}
    expected = merge(Recipe.from_mapping(recipe), tmp_path / "m", relative_to=zoo)
    rename(zoo / "b", old, new)
    found = merge(Recipe.from_mapping(recipe), tmp_path / "m", relative_to=zoo, overwrite=True)
    assert found.fingerprint == expected.fingerprint
    rename(zoo / "a", old, new)
    if family != "llava":
        check_saved_and_live(family, recipe, zoo, tmp_path / "m")


def test_a_padded_vocabulary_stays_padded(tmp_path: Path):
    # The embedding has more rows than the tokenizer has tokens; the config counts rows, as transformers does.
    for seed, name in enumerate("ab"):
        new_model("qwen2", seed, vocab_size=64).save_pretrained(tmp_path / name)
    check_saved_and_live("qwen2", LINEAR, tmp_path, tmp_path / "m")
    assert Checkpoint.open(tmp_path / "m").tensors["model.embed_tokens.weight"].shape == (64, 32)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["vocab_size"] == 64


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2"])
def test_tied_stays_tied(family: str, tmp_path: Path):
    zoo = save_pair(family, tmp_path)
    merge(Recipe.from_mapping(LINEAR), tmp_path / "m", relative_to=zoo)
    loaded = model_class(family).from_pretrained(tmp_path / "m")
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert "lm_head.weight" not in Checkpoint.open(tmp_path / "m").tensors


def test_layers_for_multi_token_prediction_are_grafted_from_a_model_that_has_them(tmp_path: Path):
    """A fine-tune that lost them gets those of its base; DeepSeek's beyond the last layer, whatever its number is."""
    zoo = save_pair("deepseek_v3", tmp_path)
    shutil.copytree(zoo / "a", zoo / "base")
    file, config = zoo / "base" / "model.safetensors", zoo / "base" / "config.json"
    tensors = load_file(file)
    own = {key.replace("layers.2.", "layers.3."): value + 1 for key, value in tensors.items() if "layers.2." in key}
    save_file(tensors | own | {"mtp.norm.weight": torch.ones(3)}, file, metadata={"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_nextn_predict_layers": 1}))
    result = merge(Recipe.from_mapping(LINEAR), tmp_path / "m", relative_to=zoo, mtp_from="base")
    merged = Checkpoint.open(result.path)
    assert all(torch.equal(merged.read(name), tensor) for name, tensor in own.items())
    assert torch.equal(merged.read("mtp.norm.weight"), torch.ones(3))
    assert json.loads((result.path / "config.json").read_text())["num_nextn_predict_layers"] == 1
    assert result.fingerprint == merge(Recipe.from_mapping(LINEAR), tmp_path / "plain", relative_to=zoo).fingerprint
    drop = merge(Recipe.from_mapping(DROP), tmp_path / "d", relative_to=zoo, mtp_from="base")
    shorter = Checkpoint.open(drop.path)
    assert all(
        torch.equal(shorter.read(name.replace("layers.3.", "layers.2.")), tensor) for name, tensor in own.items()
    )
    with pytest.raises(MergeError, match='"b" has no layers for multi-token prediction'):
        merge(Recipe.from_mapping(LINEAR), tmp_path / "x", relative_to=zoo, mtp_from="b")


def test_layers_for_multi_token_prediction_are_copied_from_the_base(tmp_path: Path):
    zoo = save_pair("deepseek_v3", tmp_path)
    for seed, name in enumerate("ab"):
        file = zoo / name / "model.safetensors"
        tensors = load_file(file)
        own = {key.replace("layers.2.", "layers.3."): value + seed for key, value in tensors.items() if ".2." in key}
        save_file(tensors | own | {"mtp.norm.weight": torch.full((3,), float(seed))}, file, metadata={"format": "pt"})
    expected = {
        name: tensor for name, tensor in load_file(zoo / "b" / "model.safetensors").items() if "layers.3." in name
    }
    recipe = {**LINEAR, "base_model": "b"}
    plan = plan_of(recipe, zoo)
    assert plan.config["num_hidden_layers"] == 3
    assert plan.extra == {*expected, "mtp.norm.weight"}
    merge(Recipe.from_mapping(recipe), tmp_path / "m", relative_to=zoo)
    result = Checkpoint.open(tmp_path / "m")
    assert all(torch.equal(result.read(name), tensor) for name, tensor in expected.items())
    live = live_model("deepseek_v3", plan.config)
    report = LiveMerge(open_checkpoints(Recipe.from_mapping(recipe).references(), zoo)).write(
        plan, live_parameters(live)
    )
    assert report.merged == len(plan.jobs) - len(plan.extra)
    deeper = plan_of({**stack(("b", 0, 3), ("b", 2, 3))}, zoo)
    assert {name for name in deeper.extra if "layers" in name} == {
        name.replace("layers.3.", "layers.4.") for name in expected
    }


def test_experts_are_parts_of_a_live_parameter():
    model = new_model("qwen3_moe", 0)
    named = dict(model.named_parameters())
    parts = live_parameters(model)
    up = parts["model.layers.0.mlp.experts.2.up_proj.weight"]
    up.fill_(5.0)
    fused = named["model.layers.0.mlp.experts.gate_up_proj"]
    assert (fused == 5).sum() == up.numel() == 24 * 32
    assert torch.equal(fused[2, 24:], torch.full((24, 32), 5.0)), "transformers puts up after gate"


def test_an_expert_that_is_not_written_is_named(tmp_path: Path):
    zoo = save_pair("mixtral", tmp_path)
    plan = plan_of(COPY, zoo)
    live = live_parameters(live_model("mixtral", plan.config))
    lacking = replace(plan, jobs=tuple(job for job in plan.jobs if "experts.3.w2" not in job.output))
    with pytest.raises(
        MergeError, match=r"does not make the live parameters model\.layers\.0\.mlp\.experts\.down_proj"
    ):
        LiveMerge({}).write(lacking, live)
