"""Writes `oracles.safetensors`: tiny quantized weights as libraries write them, and what those libraries make of them.

    pip install compressed-tensors==0.20.0 bitsandbytes==0.50.2 && python make_oracles.py

Names are those of published models: DeepSeek-V3, RedHatAI/Llama-3.1-8B-Instruct-FP8-dynamic and its like,
openai/gpt-oss-20b, unsloth's bnb-4bit. Of every case the file has the stored tensors, the expected ones and, in its
metadata, the quantization_config.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

MODULE = "model.layers.0.mlp.down_proj"
EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"

stored: dict[str, Tensor] = {}
expected: dict[str, Tensor] = {}
configs: dict[str, dict[str, Any]] = {}


def case(name: str, config: dict[str, Any], tensors: dict[str, Tensor], result: dict[str, Tensor]) -> None:
    configs[name] = config
    stored.update({f"{name}/stored/{key}": value.contiguous() for key, value in tensors.items()})
    expected.update({f"{name}/expected/{key}": value.float().contiguous() for key, value in result.items()})


def weight(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 1000 + columns)) * 0.05


def compressed(name: str, form: str, shape: tuple[int, int], **arguments: Any) -> None:
    """compressed-tensors: quantized and read back by its own compressors, with scales in float32."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    whole = weight(*shape)
    size, block = args.group_size, args.block_structure
    if block:
        tiles = whole.unflatten(-1, (-1, block[1])).unflatten(-3, (-1, block[0]))
        low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
    elif size:
        low, high = whole.unflatten(-1, (-1, size)).amin(-1), whole.unflatten(-1, (-1, size)).amax(-1)
    elif args.strategy == "channel":
        low, high = whole.amin(-1, keepdim=True), whole.amax(-1, keepdim=True)
    else:
        low, high = whole.amin().view(1), whole.amax().view(1)
    tensors = {"weight": whole}
    more = {}
    if form == "nvfp4-pack-quantized":
        more["global_scale"] = tensors["weight_global_scale"] = generate_gparam(whole.amin(), whole.amax())
    scale, zero = calculate_qparams(low, high, args, **more)
    compressor = BaseCompressor.get_value_from_registry(form)
    packed = compressor.compress(tensors | {"weight_scale": scale.float(), "weight_zero_point": zero}, scheme)
    result = compressor.decompress(packed, scheme)["weight"]
    if form == "nvfp4-pack-quantized":
        from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
        from compressed_tensors.quantization.lifecycle.forward import dequantize

        codes = unpack_fp4_from_uint8(packed["weight_packed"], *shape).float()
        result = dequantize(codes, packed["weight_scale"].float(), None, args, torch.float32, more["global_scale"])
    config = {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": json.loads(args.model_dump_json())}},
        "ignore": ["lm_head"],
    }
    names = {f"{MODULE}.{key}": value for key, value in packed.items()}
    if form == "float-quantized" and args.strategy == "tensor":
        names[f"{MODULE}.input_scale"] = torch.tensor([0.5])
    case(name, config, names, {f"{MODULE}.weight": result})


def block_fp8() -> None:
    """The blocks of 128 as DeepSeek has them, at edges too, read by compressed-tensors' converter and transformers."""
    from compressed_tensors.entrypoints.convert.converters.fp8block_dequantizer import FP8BlockDequantizer
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    codes = weight(24, 40).mul(4000).to(torch.float8_e4m3fn)
    scales = torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    reader = FP8BlockDequantizer(weight_block_size=(16, 16), dtype=torch.float32)
    config = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic", "fmt": "e4m3"}
    tensors = {f"{MODULE}.weight": codes, f"{MODULE}.weight_scale_inv": scales}
    case("fp8 blocks", config, tensors, {f"{MODULE}.weight": reader._create_dequantized_weight(codes, scales)})

    settings = SimpleNamespace(weight_block_size=[16, 16], scale_fmt="float")
    made = Fp8Quantize(SimpleNamespace(quantization_config=settings)).convert({f"{MODULE}.weight": weight(32, 48)})
    whole = reader._create_dequantized_weight(made[f"{MODULE}.weight"], made[f"{MODULE}.weight_scale_inv"])
    case("fp8 of transformers", config, made, {f"{MODULE}.weight": whole})
    stack = torch.stack([weight(32, 16), weight(32, 17)[:, :16]])
    made = Fp8Quantize(SimpleNamespace(quantization_config=settings)).convert({EXPERTS: stack})
    wholes = [reader._create_dequantized_weight(*pair) for pair in zip(*made.values(), strict=True)]
    case("fp8 experts", config, made, {EXPERTS: torch.stack(wholes)})


def mxfp4() -> None:
    from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (2, 8, 3, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(115, 125, (2, 8, 3), generator=generator, dtype=torch.uint8)
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    tensors = {f"{EXPERTS}_blocks": blocks, f"{EXPERTS}_scales": scales}
    case("mxfp4", config, tensors, {EXPERTS: _convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)})


def bitsandbytes() -> None:
    from bitsandbytes import functional

    for kind, nested in (("nf4", True), ("nf4", False), ("fp4", False)):
        codes, state = functional.quantize_4bit(
            weight(48, 64), blocksize=64, quant_type=kind, compress_statistics=nested
        )
        parts = {f"{MODULE}.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
        whole = functional.dequantize_4bit(codes, state)
        case(f"{kind} {nested}", config, parts | {f"{MODULE}.weight": codes}, {f"{MODULE}.weight": whole})
    codes, scales, _ = functional.int8_vectorwise_quant(weight(8, 32).half())
    tensors = {f"{MODULE}.weight": codes, f"{MODULE}.SCB": scales}
    tensors[f"{MODULE}.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    whole = functional.int8_vectorwise_dequant(codes, scales)
    case("int8 rows", {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors, {f"{MODULE}.weight": whole})


def awq() -> None:
    from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter

    generator = torch.Generator().manual_seed(0)
    words = [torch.randint(-(2**31), 2**31, (rows, 2), generator=generator).int() for rows in (16, 2)]
    scales = torch.rand(2, 16, generator=generator).half()
    numbers, zeros = AutoAWQConverter.reverse_awq_order(*AutoAWQConverter.unpack_awq(*words, 4), 4)
    numbers, zeros = (tensor & 15 for tensor in (numbers, zeros))
    whole = (numbers - zeros.repeat_interleave(8, 0)) * scales.float().repeat_interleave(8, 0)
    tensors = {f"{MODULE}.qweight": words[0], f"{MODULE}.qzeros": words[1], f"{MODULE}.scales": scales}
    config = {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemm", "zero_point": True}
    case("awq", config, tensors, {f"{MODULE}.weight": whole.T})


if __name__ == "__main__":
    floats: dict[str, Any] = {"num_bits": 8, "type": "float"}
    compressed("fp8 tensor", "float-quantized", (16, 32), **floats, strategy="tensor")
    compressed("fp8 rows", "float-quantized", (16, 32), **floats, strategy="channel")
    compressed("fp8 block", "float-quantized", (16, 32), **floats, strategy="block", block_structure=[8, 16])
    compressed("int8 rows of compressed-tensors", "int-quantized", (16, 32), num_bits=8, strategy="channel")
    compressed("int8 zeros", "int-quantized", (16, 32), num_bits=8, strategy="channel", symmetric=False)
    group: dict[str, Any] = {"num_bits": 4, "strategy": "group", "group_size": 16}
    compressed("int4 groups", "pack-quantized", (16, 32), **group)
    compressed("int4 zeros", "pack-quantized", (24, 32), **group, symmetric=False)
    compressed("int8 packed", "pack-quantized", (16, 32), num_bits=8, strategy="channel")
    compressed(
        "nvfp4", "nvfp4-pack-quantized", (16, 32), num_bits=4, type="float", strategy="tensor_group", group_size=16
    )
    compressed(
        "mxfp4 packed", "mxfp4-pack-quantized", (16, 64), num_bits=4, type="float", strategy="group", group_size=32
    )
    block_fp8()
    mxfp4()
    bitsandbytes()
    awq()
    save_file(
        stored | expected,
        Path(__file__).with_name("oracles.safetensors"),
        metadata={name: json.dumps(config) for name, config in configs.items()},
    )
