"""Quantized weights are read as the libraries that wrote them do: `oracles.safetensors`, made by `make_oracles.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from merge_core import Checkpoint, MergeError, merge

ORACLES = Path(__file__).with_name("oracles.safetensors")
MODULE = "model.layers.0.mlp.down_proj"


def configs() -> dict[str, dict[str, Any]]:
    with safe_open(ORACLES, framework="pt") as file:
        return {name: json.loads(text) for name, text in file.metadata().items()}


CONFIGS = configs()


def write(directory: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Checkpoint:
    directory.mkdir(exist_ok=True)
    whole = {"model_type": "llama", "dtype": "bfloat16", "num_hidden_layers": 1, "quantization_config": config}
    (directory / "config.json").write_text(json.dumps(whole))
    save_file(dict(tensors), directory / "model.safetensors")
    return Checkpoint.open(directory)


def part_of(name: str, kind: str) -> dict[str, Tensor]:
    start = f"{name}/{kind}/"
    return {key.removeprefix(start): value for key, value in load_file(ORACLES).items() if key.startswith(start)}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_weight_is_what_its_library_says(name: str, tmp_path: Path):
    plain = torch.randn(4, 4).to(torch.bfloat16)
    checkpoint = write(tmp_path, part_of(name, "stored") | {"model.embed_tokens.weight": plain}, CONFIGS[name])
    expected = part_of(name, "expected")
    assert set(checkpoint.tensors) == {*expected, "model.embed_tokens.weight"}
    assert torch.equal(checkpoint.read("model.embed_tokens.weight"), plain)
    for tensor, values in expected.items():
        read = checkpoint.read(tensor)
        assert (read.dtype, read.is_contiguous()) == (torch.float32, True)
        assert checkpoint.tensors[tensor].shape == tuple(read.shape)
        assert checkpoint.tensors[tensor].dtype is torch.bfloat16
        # LLM.int8 and the doubly quantized are multiplied in another order.
        torch.testing.assert_close(read, values, rtol=3e-7 if "int8 rows" in name or "True" in name else 0, atol=0)
    assert "quantization_config" not in checkpoint.config
    checkpoint.load(tensor)
    checkpoint.release(tensor)


@pytest.mark.parametrize(("bits", "release", "ordered"), [(4, "gptq", True), (8, "gptq", False), (2, "gptq_v2", True)])
def test_gptq_is_what_its_formula_says(bits: int, release: str, ordered: bool, tmp_path: Path):
    """``w[i, o] = s[g(i), o] (q - z - 1)``, integer by integer in Python; the second release stores z as it is."""
    inputs, outputs, groups, per_word = 32, 16, 4, 32 // bits
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**31), 2**31, (inputs // per_word, outputs), generator=generator).int()
    zeros = torch.randint(-(2**31), 2**31, (groups, outputs // per_word), generator=generator).int()
    scales = torch.rand(groups, outputs, generator=generator).half()
    order = torch.randperm(inputs, generator=generator).remainder(groups).int()
    tensors = {f"{MODULE}.qweight": words, f"{MODULE}.qzeros": zeros, f"{MODULE}.scales": scales}
    if ordered:
        tensors[f"{MODULE}.g_idx"] = order
    config = {"quant_method": "gptq", "bits": bits, "group_size": 8, "checkpoint_format": release}
    read = write(tmp_path, tensors, config).read(f"{MODULE}.weight")
    assert read.shape == (outputs, inputs)
    less = 0 if release == "gptq_v2" else 1
    for i in range(inputs):
        group = int(order[i]) if ordered else i // 8
        for o in range(outputs):
            q = int(words[i // per_word, o]) >> (bits * (i % per_word)) & (2**bits - 1)
            z = int(zeros[group, o // per_word]) >> (bits * (o % per_word)) & (2**bits - 1)
            assert read[o, i] == float(scales[group, o]) * (q - z - less)


def test_columns_of_packed_integers_may_belong_to_groups_in_any_order(tmp_path: Path):
    tensors, expected = part_of("int4 groups", "stored"), part_of("int4 groups", "expected")[f"{MODULE}.weight"]
    tensors[f"{MODULE}.weight_g_idx"] = torch.tensor([column // 16 for column in range(32)]).int()
    assert torch.equal(write(tmp_path, tensors, CONFIGS["int4 groups"]).read(f"{MODULE}.weight"), expected)
    tensors[f"{MODULE}.weight_g_idx"] = torch.tensor([1 - column // 16 for column in range(32)]).int()
    swapped = write(tmp_path, tensors, CONFIGS["int4 groups"]).read(f"{MODULE}.weight")
    scales = tensors[f"{MODULE}.weight_scale"].repeat_interleave(16, 1)
    torch.testing.assert_close(swapped, expected / scales * scales.flip(1))


def test_modules_of_several_schemes_have_each_its_own(tmp_path: Path):
    tensors = {name.replace("layers.0", "layers.1"): value for name, value in part_of("int8 packed", "stored").items()}
    four, eight = (CONFIGS[name]["config_groups"]["group_0"] for name in ("int4 groups", "int8 packed"))
    named = {"a": eight | {"targets": ["re:.*layers\\.1\\..*"]}, "b": four}
    for groups in (named, dict(reversed(named.items()))):
        config = {"quant_method": "compressed-tensors", "config_groups": groups}
        checkpoint = write(tmp_path, tensors | part_of("int4 groups", "stored"), config)
        for name, layer in (("int4 groups", 0), ("int8 packed", 1)):
            read = checkpoint.read(f"model.layers.{layer}.mlp.down_proj.weight")
            assert torch.equal(read, part_of(name, "expected")[f"{MODULE}.weight"])


def test_scales_of_the_cache_are_left_out(tmp_path: Path):
    more = {f"model.layers.0.self_attn.{letter}_scale": torch.ones(1) for letter in "kv"}
    checkpoint = write(tmp_path, part_of("fp8 tensor", "stored") | more, CONFIGS["fp8 tensor"])
    assert set(checkpoint.tensors) == {f"{MODULE}.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {f"{MODULE}.weight_scale_inv": torch.ones(3, 3)},
            r"weight_scale_inv: of shape \[3, 3\] for a weight of shape",
        ),
        ({f"{MODULE}.weight_scale_inv": None}, "in a way that is not read here: model.layers.0.mlp.down_proj.weight"),
        ({f"{MODULE}.W_q": torch.zeros(4, 4, dtype=torch.uint8)}, r"quantized \(fp8\).*W_q\. Name the unquantized"),
        ({f"{MODULE}.qweight": torch.zeros(4, 4, dtype=torch.int32)}, "no tensor .*down_proj.scales, without which"),
    ],
)
def test_what_cannot_be_read_is_refused(change: dict[str, Tensor | None], message: str, tmp_path: Path):
    tensors = part_of("fp8 blocks", "stored") | change
    with pytest.raises(MergeError, match=message):
        write(tmp_path, {name: value for name, value in tensors.items() if value is not None}, CONFIGS["fp8 blocks"])


def test_a_file_for_inference_is_named_with_what_to_do(tmp_path: Path):
    (tmp_path / "model.Q4_K_M.gguf").touch()
    with pytest.raises(MergeError, match=r'model\.Q4_K_M\.gguf, for inference.*gguf_file="model\.Q4_K_M\.gguf"'):
        Checkpoint.open(tmp_path)


def test_codes_beside_scales_are_refused_where_the_config_is_silent(tmp_path: Path):
    """As ModelOpt has NVFP4, which says so in a file of its own; places of tokens are no codes."""
    tensors = {
        f"{MODULE}.weight": torch.zeros(4, 8, dtype=torch.uint8),
        f"{MODULE}.weight_scale": torch.ones(4, 1).to(torch.float8_e4m3fn),
    }
    with pytest.raises(MergeError, match=r"quantized \(its config does not say how\).*down_proj\.weight"):
        write(tmp_path, tensors, {})
    places = {"embeddings.position_ids": torch.arange(8)[None]}
    checkpoint = write(tmp_path, places | part_of("fp8 tensor", "stored"), CONFIGS["fp8 tensor"])
    assert set(checkpoint.tensors) == {f"{MODULE}.weight", "embeddings.position_ids"}


@pytest.mark.parametrize("size", [[16], [0, 16], ["16", 16], "16x16", [True, True]])
def test_a_block_size_that_is_none_is_refused(size: Any, tmp_path: Path):
    with pytest.raises(MergeError, match="expected"):
        write(tmp_path, part_of("fp8 blocks", "stored"), CONFIGS["fp8 blocks"] | {"weight_block_size": size})


def test_a_float_model_whose_config_speaks_of_a_quantization_is_a_float_model(make_model: Any):
    directory = make_model("a", seed=1)
    plain = dict(Checkpoint.open(directory).tensors)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    assert dict(Checkpoint.open(directory).tensors) == plain


def test_a_quantized_model_merges_with_a_float_one(tmp_path: Path, make_model: Any):
    """Half of each, in float32 and rounded once; the result is a plain model."""
    quantized, plain = make_model("a", seed=1, dtype="bfloat16"), make_model("b", seed=2, dtype="bfloat16")
    weights = load_file(quantized / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    scales = weights[name].float().abs().amax(1, keepdim=True) / 448
    codes = (weights[name].float() / scales).to(torch.float8_e4m3fn)
    tensors = weights | {name: codes, f"{name}_scale": scales, f"{name[:-7]}.input_scale": torch.ones(1)}
    save_file(tensors, quantized / "model.safetensors")
    config = json.loads((quantized / "config.json").read_text())
    quantization = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    (quantized / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    halves = [{"model": str(model), "parameters": {"weight": 0.5}} for model in (quantized, plain)]
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(json.dumps({"merge_method": "linear", "models": halves}))
    result = merge(recipe, tmp_path / "out")
    merged = load_file(result.path / "model.safetensors")
    assert set(merged) == set(weights)
    expected = (codes.float() * scales + load_file(plain / "model.safetensors")[name].float()) / 2
    assert torch.equal(merged[name], expected.to(torch.bfloat16))
    assert json.loads((result.path / "config.json").read_text()) == config
