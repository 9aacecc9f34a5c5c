"""Three models of two layers, by config and tensors alone, a task with ten items, and a search that is sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

TASK: dict[str, Any] = {
    "task": "echo",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "echo.jsonl"}},
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


GOOD: dict[str, Any] = {
    "recipe": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [
            {"model": "math", "parameters": {"weight": {"low": 0, "high": 1}}},
            {"model": "code", "parameters": {"weight": {"low": 0, "high": 1}}},
        ],
    },
    "tasks": [{"name": "echo"}],
    "task_search_path": "tasks",
    "items": {"search": 4, "held_out": 4},
    "budget": {"evaluations": 4},
}


def write_models(root: Path) -> Path:
    """Put models and task in a directory."""
    modules = [*(f"self_attn.{kind}_proj" for kind in "qkvo"), *(f"mlp.{kind}_proj" for kind in ("gate", "up", "down"))]
    norms = ["input_layernorm", "post_attention_layernorm"]
    names = [f"model.layers.{layer}.{module}" for layer in range(2) for module in [*modules, *norms]]
    tensors = {
        f"{name}.weight": torch.zeros((4,) if "norm" in name else (4, 4))
        for name in [*names, "model.embed_tokens", "model.norm", "lm_head"]
    }
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 4)
    heads = dict.fromkeys(("num_attention_heads", "num_key_value_heads"), 1)
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    config = {**kind, "num_hidden_layers": 2, **sizes, **heads}
    for name in ("base", "math", "code"):
        (root / name).mkdir()
        save_file(tensors, root / name / "model.safetensors", metadata={"format": "pt"})
        (root / name / "config.json").write_text(json.dumps(config))
    (root / "tasks").mkdir()
    (root / "tasks" / "echo.yaml").write_text(yaml.safe_dump(TASK))
    lines = [json.dumps({"question": str(number), "answer": str(number)}) for number in range(10)]
    (root / "tasks" / "echo.jsonl").write_text("\n".join(lines) + "\n")
    return root
