"""Whole quantized models: merged, written quantized, and read by transformers as they are read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import live_model, model_class, new_model
from transformers import FineGrainedFP8Config

from merge_core import (
    Checkpoint,
    LiveMerge,
    MergeError,
    Recipe,
    build_plan,
    live_fingerprint,
    live_parameters,
    merge,
    open_checkpoints,
)
from merge_core.checkpoint.quantized.forms import BlockFloat8, Mxfp4Stack

LINEAR: dict[str, Any] = {
    "merge_method": "linear",
    "models": [{"model": "a", "parameters": {"weight": 0.25}}, {"model": "b", "parameters": {"weight": 0.75}}],
}
BLOCK = BlockFloat8((8, 8))
FLOAT8 = {"quant_method": "fp8", "weight_block_size": [8, 8], "activation_scheme": "dynamic", "fmt": "e4m3"}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}


def save(family: str, directory: Path, **changes: Any) -> None:
    """Two models, the first of them quantized as its family is published."""
    for seed, name in enumerate("ab"):
        new_model(family, seed, **changes).to(torch.bfloat16).save_pretrained(directory / name)
    tensors = load_file(directory / "a" / "model.safetensors")
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        matrix = tensor.ndim == 2 and ".layers." in name and ".gate." not in name and "router" not in name
        if family == "gpt_oss":
            chosen = name.endswith(("experts.gate_up_proj", "experts.down_proj"))
            stored |= Mxfp4Stack().store(name, tensor.float()) if chosen else {name: tensor}
        else:
            stored |= BLOCK.store(name, tensor.float()) if matrix else {name: tensor}
    save_file(stored, directory / "a" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "a" / "config.json").read_text())
    config["quantization_config"] = MXFP4 if family == "gpt_oss" else FLOAT8
    (directory / "a" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("family", "kind", "changes"),
    [("qwen3", "fp8", {}), ("qwen3_moe", "fp8", {}), ("gpt_oss", "mxfp4", {"intermediate_size": 64})],
)
def test_a_quantized_model_is_merged_and_written_as_transformers_reads_it(
    family: str, kind: str, changes: dict[str, Any], tmp_path: Path
):
    save(family, tmp_path, **changes)
    recipe = Recipe.from_mapping(LINEAR | {"out_dtype": kind})
    saved = merge(recipe, tmp_path / "out", relative_to=tmp_path)
    source, result = Checkpoint.open(tmp_path / "a"), Checkpoint.open(saved.path)
    assert set(result.quantized) == set(source.quantized)
    config = json.loads((saved.path / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == kind

    options = {"quantization_config": FineGrainedFP8Config(dequantize=True)} if kind == "fp8" else {}
    model, info = model_class(family).from_pretrained(
        saved.path, output_loading_info=True, dtype=torch.bfloat16, **options
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    checkpoints = open_checkpoints(recipe.references(), tmp_path)
    plan = build_plan(recipe, checkpoints)
    assert "quantization_config" not in plan.config
    candidate = live_model(family, plan.config).to(torch.bfloat16)
    live = live_parameters(candidate)
    LiveMerge(checkpoints).write(plan, live)
    assert live_fingerprint(plan, live) == saved.fingerprint
    loaded = model.state_dict()
    for name, parameter in candidate.state_dict().items():
        assert torch.equal(loaded[name], parameter), name
    for name in result.quantized:
        assert torch.equal(result.read(name).to(torch.bfloat16), live[name])


def test_a_quantized_model_merged_without_a_form_is_a_plain_one(tmp_path: Path):
    save("qwen3", tmp_path)
    saved = merge(Recipe.from_mapping(LINEAR), tmp_path / "out", relative_to=tmp_path)
    tensors = load_file(saved.path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert set(tensors) == set(load_file(tmp_path / "b" / "model.safetensors"))
    a, b = Checkpoint.open(tmp_path / "a"), Checkpoint.open(tmp_path / "b")
    for name, tensor in tensors.items():
        expected = 0.25 * a.read(name).double() + 0.75 * b.read(name).double()
        torch.testing.assert_close(tensor.double(), expected, rtol=2**-8, atol=1e-6)
    model_class("qwen3").from_pretrained(saved.path)


def test_a_float_model_is_written_in_float8_but_for_routers_and_what_is_small(tmp_path: Path):
    for seed, name in enumerate("ab"):
        new_model("qwen3_moe", seed, hidden_size=128, moe_intermediate_size=128, num_hidden_layers=1).save_pretrained(
            tmp_path / name
        )
    saved = merge(Recipe.from_mapping(LINEAR | {"out_dtype": "fp8"}), tmp_path / "out", relative_to=tmp_path)
    result = Checkpoint.open(saved.path)
    assert {name.split(".")[-2] for name in result.quantized} == {"gate_proj", "up_proj", "down_proj"}
    left = json.loads((saved.path / "config.json").read_text())["quantization_config"]["modules_to_not_convert"]
    assert "lm_head" in left
    assert "model.layers.0.mlp.gate" in left
    assert "model.layers.0.self_attn.q_proj" in left  # 32 rows
    assert result.tensors["model.layers.0.mlp.gate.weight"].dtype is torch.bfloat16


def test_mxfp4_is_for_the_experts_of_gpt_oss(tmp_path: Path):
    for seed, name in enumerate("ab"):
        new_model("qwen3", seed).save_pretrained(tmp_path / name)
    with pytest.raises(MergeError, match=r"out_dtype: mxfp4 is a form for the experts of gpt-oss"):
        merge(Recipe.from_mapping(LINEAR | {"out_dtype": "mxfp4"}), tmp_path / "out", relative_to=tmp_path)
