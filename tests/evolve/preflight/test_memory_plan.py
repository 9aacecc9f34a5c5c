"""Bytes of a worker, against sums made by hand and against a model that is built."""

from __future__ import annotations

import torch
import transformers

from evolve.config.machines import BackendConfig
from evolve.preflight.memory_plan import plan_memory

CONFIG = {
    "model_type": "llama",
    "dtype": "bfloat16",
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 500,
}
# Two for keys and values, layers, heads, head dimension.
VALUES_PER_TOKEN = 2 * 3 * 2 * 16


def test_the_live_model_is_counted_in_the_forwards_precision():
    for backend, device, width in (
        (BackendConfig(), "cpu", 4),
        (BackendConfig(), "cuda", 2),
        (BackendConfig(dtype="float32"), "cuda:1", 4),
        (BackendConfig(dtype="float16"), "cpu", 2),
    ):
        plan = plan_memory(backend, CONFIG, 1000, 2000, device)
        assert plan.live_model == 1000 * width
        assert plan.source_buffers == (0 if device == "cpu" else 2 * 64 * 2**20)


def test_keys_and_values_are_those_of_a_full_batch_or_of_the_longest_input():
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**{**CONFIG, "vocab_size": 50, "intermediate_size": 8}), dtype=torch.float32
    )
    with torch.no_grad():
        cache = model(torch.zeros(1, 10, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert plan_memory(BackendConfig(max_batch_tokens=10), CONFIG, 0, 0, "cpu").key_value_cache == held
    assert plan_memory(BackendConfig(), CONFIG, 0, 0, "cpu").key_value_cache == 4096 * VALUES_PER_TOKEN * 4
    vllm = BackendConfig(name="vllm", dtype="bfloat16")
    assert plan_memory(vllm, CONFIG, 0, 0, "cpu").key_value_cache == 500 * VALUES_PER_TOKEN * 2
    short = BackendConfig(name="vllm", dtype="bfloat16", model_args={"max_model_len": 7})
    assert plan_memory(short, CONFIG, 0, 0, "cpu").key_value_cache == 7 * VALUES_PER_TOKEN * 2
    assert plan_memory(BackendConfig(), {"model_type": "mamba"}, 0, 0, "cpu").key_value_cache == 0
    mixed = {**CONFIG, "layer_types": ["linear_attention", "full_attention", "linear_attention"]}
    assert plan_memory(BackendConfig(max_batch_tokens=10), mixed, 0, 0, "cpu").key_value_cache == held / 3
    nested = {"model_type": "gemma3", "text_config": CONFIG}
    assert plan_memory(BackendConfig(max_batch_tokens=10), nested, 0, 0, "cpu").key_value_cache == held


def test_a_second_copy_is_counted_where_there_is_one():
    assert plan_memory(BackendConfig(), CONFIG, 1000, 2000, "cpu").second_copy == 0
    plan = plan_memory(BackendConfig(name="vllm"), CONFIG, 1000, 2000, "cpu")
    assert plan.second_copy == 2000
    assert plan.total == 4000 + 2000 + plan.key_value_cache
