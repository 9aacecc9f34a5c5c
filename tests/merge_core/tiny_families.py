"""Tiny random models of many families, made by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

COMMON: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "phi3": {},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "stablelm": {},
    "cohere": {},
    "olmo2": {},
    "falcon": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"head_dim": 8, "decoder_sparse_step": 1, **EXPERTS},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "num_key_value_heads": 4,
    },
    "mamba": {"state_size": 4},
}
NAMED = [
    *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt_neox", "gpt2", "stablelm", "cohere"),
    *("mixtral", "qwen3_moe", "olmo2"),
]
"""Families whose checkpoints are merged in all of `FORMS`."""
FORMS = ("safetensors", "sharded safetensors", "bin", "sharded bin")
"""What a checkpoint is stored in."""
EYE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 32,
}
SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False, **EYE}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
VISION_FAMILIES: dict[str, dict[str, Any]] = {
    "llava": {
        "text_config": {"model_type": "llama", **COMMON},
        "vision_config": {"model_type": "clip_vision_model", **EYE},
        "image_token_index": 40,
    },
    "gemma3": {
        "text_config": {**COMMON, "head_dim": 8},
        "vision_config": SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": 40,
    },
    "paligemma": {
        "text_config": {"model_type": "gemma", "head_dim": 8, **COMMON},
        "vision_config": SIGLIP,
        "projection_dim": 32,
        "image_token_index": 40,
    },
    "qwen2_vl": {
        "text_config": {"rope_parameters": ROPE, **COMMON},
        "vision_config": {"depth": 2, "embed_dim": 32, "num_heads": 4, "hidden_size": 32, "patch_size": 8},
        "image_token_id": 40,
        "video_token_id": 41,
        "vision_start_token_id": 42,
        "vision_end_token_id": 43,
    },
}
TOKENS = torch.arange(4, 12)[None]


def model_class(family: str) -> Any:
    """The transformers class that loads a family's models."""
    return AutoModelForImageTextToText if family in VISION_FAMILIES else AutoModelForCausalLM


def new_model(family: str, seed: int, **changes: Any) -> PreTrainedModel:
    """A random model; its biases and norms are random too."""
    options = VISION_FAMILIES.get(family) or {**COMMON, **FAMILIES[family]}
    torch.manual_seed(seed)
    model = model_class(family).from_config(AutoConfig.for_model(family, **{**options, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def save_pair(family: str, directory: Path, form: str = "safetensors") -> Path:
    """Two models, ``a`` and ``b``, in a directory, stored in one of `FORMS`."""
    for seed, name in enumerate("ab"):
        model = new_model(family, seed)
        model.save_pretrained(directory / name, max_shard_size="20KB" if form.startswith("sharded") else "5GB")
        if form.endswith("bin"):
            pickle_weights(directory / name)
    return directory


def pickle_weights(directory: Path) -> None:
    """Turns safetensors files and their index into what transformers wrote before."""
    for file in directory.glob("*.safetensors"):
        torch.save(load_file(file), directory / old_name(file.name))
        file.unlink()
    for index in directory.glob("*.safetensors.index.json"):
        content = json.loads(index.read_text())
        content["weight_map"] = {name: old_name(file) for name, file in content["weight_map"].items()}
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps(content))
        index.unlink()


def old_name(file: str) -> str:
    return file.replace("model", "pytorch_model").replace(".safetensors", ".bin")


def live_model(family: str, config: dict[str, Any]) -> PreTrainedModel:
    """A random live model with a plan's config."""
    settings = {key: value for key, value in config.items() if key != "model_type"}
    torch.manual_seed(7)
    return model_class(family).from_config(AutoConfig.for_model(config["model_type"], **settings)).eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits
