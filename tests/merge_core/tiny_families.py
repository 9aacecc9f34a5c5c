"""Tiny random models of many families, made by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
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
HYBRID = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
GEMMA4 = {
    "head_dim": 8,
    "global_head_dim": 8,
    "vocab_size_per_layer_input": 48,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
}
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
    "qwen3_5_text": {"head_dim": 8, **HYBRID},
    "qwen3_5_moe_text": {"head_dim": 8, "shared_expert_intermediate_size": 24, **HYBRID, **EXPERTS},
    "qwen3_next": {
        "head_dim": 8,
        "shared_expert_intermediate_size": 24,
        "decoder_sparse_step": 1,
        **HYBRID,
        **EXPERTS,
    },
    "lfm2": {"layer_types": ["conv", "conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "gemma4_text": GEMMA4,
    "glm4_moe": {
        "head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "ministral3": {"head_dim": 8},
    "minimax_m2": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "rotary_dim": 8},
    "nemotron_h": {
        "layers_block_type": ["mamba", "moe", "attention"],
        "head_dim": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 2,
        "chunk_size": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "moe_shared_expert_intermediate_size": 24,
    },
    "granitemoehybrid": {
        "layer_types": ["mamba", "mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 24,
    },
    "falcon_h1": {"head_dim": 8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
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
PIXTRAL = {key: value for key, value in EYE.items() if key != "projection_dim"}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
QWEN_EYE = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 4,
    "patch_size": 8,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
}
QWEN_TOKENS = {"image_token_id": 40, "video_token_id": 41, "vision_start_token_id": 42, "vision_end_token_id": 43}
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
        **QWEN_TOKENS,
    },
    "qwen3_vl": {
        "text_config": {"head_dim": 8, "rope_parameters": ROPE, **COMMON},
        "vision_config": {"deepstack_visual_indexes": [0, 1], **QWEN_EYE},
        **QWEN_TOKENS,
    },
    "qwen3_5": {"text_config": {**COMMON, **FAMILIES["qwen3_5_text"]}, "vision_config": QWEN_EYE, **QWEN_TOKENS},
    "qwen3_5_moe": {
        "text_config": {**COMMON, **FAMILIES["qwen3_5_moe_text"]},
        "vision_config": QWEN_EYE,
        **QWEN_TOKENS,
    },
    "mistral3": {
        "text_config": {"model_type": "mistral", "head_dim": 8, **COMMON},
        "vision_config": {"model_type": "pixtral", "head_dim": 8, **PIXTRAL},
        "image_token_index": 40,
    },
    "gemma4": {
        "text_config": {**COMMON, **GEMMA4},
        "vision_config": {"head_dim": 8, "num_key_value_heads": 4, "position_embedding_size": 16, **PIXTRAL},
        "audio_config": None,
        "image_token_id": 40,
    },
}
UNSTACKABLE = ("gemma4_text", "gemma4")
"""Families with a part for every layer in tensors outside of the layers."""
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
    with TemporaryDirectory() as directory:  # whose reader knows how numbers such as infinity are written
        (Path(directory) / "config.json").write_text(json.dumps(config))
        settings = AutoConfig.from_pretrained(directory)
    torch.manual_seed(7)
    return model_class(family).from_config(settings).eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(TOKENS).logits
    return found
