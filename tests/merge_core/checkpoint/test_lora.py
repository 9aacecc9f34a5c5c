"""An adapter is folded into its base as PEFT does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_families import new_model
from transformers import AutoModelForCausalLM

from merge_core import Checkpoint, LiveMerge, MergeError, Recipe, live_fingerprint, live_parameters, merge
from merge_core.checkpoint.adapters import adapted_checkpoint
from merge_core.checkpoint.lora import LoraCheckpoint
from merge_core.checkpoint.open_checkpoints import open_checkpoints

MakeModel = Callable[..., Path]
DOWN, UP = "model.layers.1.mlp.down_proj", "model.layers.0.mlp.up_proj"
HIDDEN, INNER = 16, 24
SHAPES = {DOWN: (HIDDEN, INNER), UP: (INNER, HIDDEN)}


def write_adapter(
    directory: Path, tensors: dict[str, torch.Tensor] | None = None, pickled: bool = False, **settings: Any
) -> dict[str, torch.Tensor]:
    """An adapter of rank 2 on two projections, or one with the given tensors."""
    generator = torch.Generator().manual_seed(3)
    if tensors is None:
        tensors = {}
        for module, (outputs, inputs) in SHAPES.items():
            tensors[f"{module}.lora_A.weight"] = torch.randn(2, inputs, generator=generator)
            tensors[f"{module}.lora_B.weight"] = torch.randn(outputs, 2, generator=generator)
    directory.mkdir()
    stored = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    if pickled:
        torch.save(stored, directory / "adapter_model.bin")
    else:
        save_file(stored, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "org/base", **settings}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return tensors


def by_hand(weight: torch.Tensor, tensors: dict[str, torch.Tensor], module: str, scale: float) -> torch.Tensor:
    down, up = (tensors[f"{module}.lora_{side}.weight"].double() for side in "AB")
    return weight.double() + scale * up @ down


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({}, {DOWN: 3.0, UP: 3.0}),
        ({"use_rslora": True}, {DOWN: 6 / 2**0.5, UP: 6 / 2**0.5}),
        ({"alpha_pattern": {"down_proj": 10}}, {DOWN: 5.0, UP: 3.0}),
        ({"alpha_pattern": {"layers.0.*": 10}, "rank_pattern": {"up_proj": 2}, "r": 64}, {DOWN: 3.0, UP: 5.0}),
    ],
)
def test_an_adapter_is_added_at_its_scale(
    make_model: MakeModel, tmp_path: Path, settings: dict[str, Any], scales: dict[str, float], pickled: bool
):
    make_model("base")
    tensors = write_adapter(tmp_path / "adapter", pickled=pickled, **settings)
    base = Checkpoint.open(tmp_path / "base")
    folded = LoraCheckpoint(base, tmp_path / "adapter")
    assert folded.tensors.keys() == base.tensors.keys()
    for name in base.tensors:
        module = name.removesuffix(".weight")
        if module in scales:
            expected = by_hand(base.read(name), tensors, module, scales[module])
            torch.testing.assert_close(folded.read(name).double(), expected, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(folded.read(name), base.read(name))


def test_merging_with_an_adapter_saved_and_live_is_the_same(make_model: MakeModel, tmp_path: Path):
    make_model("base", dtype="bfloat16")
    make_model("other", seed=4, dtype="bfloat16")
    tensors = write_adapter(tmp_path / "adapter")
    recipe = Recipe.from_mapping(
        {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": [
                {"model": "base+adapter", "parameters": {"weight": 0.5}},
                {"model": "other", "parameters": {"weight": 0}},
            ],
        }
    )
    saved = merge(recipe, tmp_path / "m", relative_to=tmp_path)
    result, base = Checkpoint.open(tmp_path / "m"), Checkpoint.open(tmp_path / "base")
    name = f"{UP}.weight"
    expected = by_hand(base.read(name), tensors, UP, 1.5)
    torch.testing.assert_close(result.read(name), expected.to(torch.bfloat16), rtol=2**-8, atol=0)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    report = LiveMerge(open_checkpoints(recipe.references(), tmp_path)).write(recipe, live_parameters(model))
    assert live_fingerprint(report.plan, live_parameters(model)) == saved.fingerprint


def test_transposed_weights_of_gpt2_take_transposed_updates(tmp_path: Path):
    new_model("gpt2", 0).save_pretrained(tmp_path / "base")
    module = "transformer.h.0.attn.c_attn"
    down, up = torch.randn(2, 32), torch.randn(96, 2)
    update = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    write_adapter(tmp_path / "adapter", update, fan_in_fan_out=True)
    base = Checkpoint.open(tmp_path / "base")
    folded = LoraCheckpoint(base, tmp_path / "adapter").read(f"{module}.weight")
    torch.testing.assert_close(folded, base.read(f"{module}.weight") + 3 * (up @ down).T)


def test_embeddings_are_updated_and_whole_modules_replaced(make_model: MakeModel, tmp_path: Path):
    make_model("base", tied=True)
    down, up, head = torch.randn(2, 40), torch.randn(HIDDEN, 2), torch.randn(40, HIDDEN)
    embedding = "model.embed_tokens"
    update = {f"{embedding}.lora_embedding_A": down, f"{embedding}.lora_embedding_B": up, "lm_head.weight": head}
    stored = torch.randn(40, HIDDEN)  # PEFT stores an adapted embedding whole beside its update
    update[f"{embedding}.base_layer.weight"] = stored
    write_adapter(tmp_path / "adapter", update, modules_to_save=["lm_head"])
    base = Checkpoint.open(tmp_path / "base")
    folded = LoraCheckpoint(base, tmp_path / "adapter")
    torch.testing.assert_close(folded.read(f"{embedding}.weight"), stored + 3 * (up @ down).T)
    recipe = Recipe.from_mapping({"merge_method": "passthrough", "models": [{"model": "base+adapter"}]})
    merge(recipe, tmp_path / "m", relative_to=tmp_path)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert torch.equal(model.lm_head.weight, head), "a head of its own unties the model"


def test_dora_gives_every_row_its_magnitude(make_model: MakeModel, tmp_path: Path):
    make_model("base")
    tensors = write_adapter(tmp_path / "plain")
    magnitudes = {
        f"{module}.lora_magnitude_vector.weight": torch.rand(shape[0]) + 1 for module, shape in SHAPES.items()
    }
    write_adapter(tmp_path / "adapter", tensors | magnitudes, use_dora=True)
    base = Checkpoint.open(tmp_path / "base")
    folded = LoraCheckpoint(base, tmp_path / "adapter").read(f"{UP}.weight").double()
    plain = by_hand(base.read(f"{UP}.weight"), tensors, UP, 3.0)
    magnitude = magnitudes[f"{UP}.lora_magnitude_vector.weight"]
    torch.testing.assert_close(folded.norm(dim=1).float(), magnitude)
    torch.testing.assert_close(folded / folded.norm(dim=1, keepdim=True), plain / plain.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"peft_type": "PREFIX_TUNING"},
            "peft_type PREFIX_TUNING: changes no matrix of the model, not even in PEFT. Name its base without it",
        ),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4, which changes the base"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication: not supported"),
        ({"lora_alpha": "16"}, "lora_alpha: expected a number, got '16'"),
    ],
)
def test_adapters_of_other_kinds_and_scales_are_refused(
    make_model: MakeModel, tmp_path: Path, settings: dict[str, Any], message: str
):
    base = Checkpoint.open(make_model("base"))
    write_adapter(tmp_path / "adapter", **settings)
    with pytest.raises(MergeError, match=message):
        adapted_checkpoint(base, tmp_path / "adapter")


def test_an_adapter_of_another_base_is_refused_with_the_name_of_its_own(make_model: MakeModel, tmp_path: Path):
    base = Checkpoint.open(make_model("base", layers=1))
    write_adapter(tmp_path / "deeper")
    with pytest.raises(MergeError, match=r"has nothing for .*layers\.1.*Name the base it was made for: org/base"):
        LoraCheckpoint(base, tmp_path / "deeper")
    wide = {f"{UP}.lora_A.weight": torch.zeros(2, 99), f"{UP}.lora_B.weight": torch.zeros(INNER, 2)}
    write_adapter(tmp_path / "wider", wide)
    with pytest.raises(MergeError, match=r"changes a \[24, 99\] matrix, the base .* has \[24, 16\]"):
        LoraCheckpoint(base, tmp_path / "wider")


def test_half_an_update_is_refused(make_model: MakeModel, tmp_path: Path):
    base = Checkpoint.open(make_model("base"))
    write_adapter(tmp_path / "adapter", {f"{UP}.lora_A.weight": torch.zeros(2, 16)})
    with pytest.raises(MergeError, match="only one half of the update"):
        LoraCheckpoint(base, tmp_path / "adapter")


def test_an_adapter_alone_is_explained(tmp_path: Path):
    write_adapter(tmp_path / "adapter")
    with pytest.raises(MergeError, match=r"an adapter, not a model\. Name it with its base: org/base\+.*adapter"):
        Checkpoint.open(tmp_path / "adapter")
    with pytest.raises(MergeError, match=r"no adapter_config\.json"):
        LoraCheckpoint(Checkpoint(tmp_path, {}, {}), tmp_path)
