"""Bytes of a gradient step, against what a built model keeps and sums made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from evolve.config.machines import BackendConfig
from evolve.preflight import gradient_memory
from evolve.preflight.gradient_memory import CUDA_BYTES, plan_gradient_memory, plan_step
from evolve.scoring.backends.activation_memory import (
    ACTIVATION_BYTES,
    FEWEST_TOKENS,
    MicroBatch,
    activation_bytes_per_token,
    plan_micro_batch,
)
from evolve.scoring.backends.continuation_scoring import LOGITS_AT_ONCE
from merge_core import JobInput, MergePlan, OutputTokenizer, TensorJob

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}


def kept_bytes(family: str, layers: int, dtype: torch.dtype, tokens: int, **sizes: Any) -> int:
    """What the layers of a model keep for the backward pass, but for its weights."""
    config = AutoConfig.for_model(family, **SIZES, **sizes, num_hidden_layers=layers)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "sizes", "tolerance"),
    [
        ("llama", {}, 0.02),
        ("qwen2", {}, 0.02),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, 0.1),
    ],
)
def test_a_layer_keeps_what_is_counted(family: str, sizes: dict[str, Any], tolerance: float, dtype: torch.dtype):
    tokens = 128
    layer = (kept_bytes(family, 3, dtype, tokens, **sizes) - kept_bytes(family, 1, dtype, tokens, **sizes)) / 2
    counted = activation_bytes_per_token({**SIZES, **sizes}, dtype.itemsize)
    assert counted == pytest.approx(layer / tokens, rel=tolerance)


def llama(hidden: int, inner: int, layers: int, vocabulary: int, tied: bool = False) -> MergePlan:
    """The plan of a base with three experts."""
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        shapes |= {f"model.layers.{layer}.mlp.{name}.weight": (inner, hidden) for name in ("gate", "up", "down")}
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    inputs = tuple(JobInput(model, "x") for model in ("base", "a", "b", "c"))
    jobs = [TensorJob(name, "linear", inputs, None, (), shape, torch.bfloat16, 0) for name, shape in shapes.items()]
    config = {
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 128,
        "vocab_size": vocabulary,
    }
    return MergePlan(tuple(jobs), config, "base", tied, (), OutputTokenizer(Path(), Path(), None, None))


def test_a_model_of_7b_with_three_experts_fits_a_card_of_24_gb():
    plan = llama(4096, 11008, 32, 32000)
    memory = plan_gradient_memory(BackendConfig(), plan, "cuda", MicroBatch(2048, 512, checkpointing=True))
    assert memory.live_model == pytest.approx(13.5e9, rel=0.01)
    assert memory.gradient == 2 * 32000 * 4096
    assert memory.sources == 4 * memory.gradient
    layer = 2048 * (2 * 4096 * (4 + 4) + 2 * 4 * 4096 + 2 * 4 * 11008)
    assert memory.activations == 32 * 2048 * 4096 * 2 + 2 * layer
    assert memory.loss == 512 * 32000 * 16
    assert memory.total < 18e9
    assert memory.fits(memory.total + CUDA_BYTES)
    assert not memory.fits(memory.total)
    assert memory.fits(24 * 10**9)
    whole = plan_gradient_memory(BackendConfig(), plan, "cuda", MicroBatch(2048, 512, checkpointing=False))
    assert whole.activations == 32 * layer
    assert not whole.fits(24 * 10**9)


def test_a_tied_heads_gradient_waits_for_the_embeddings():
    apart, tied = (
        plan_gradient_memory(BackendConfig(), llama(256, 688, 2, 1000, tied), "cpu", MicroBatch(10, 10, True))
        for tied in (False, True)
    )
    assert (apart.sources, tied.sources) == (0, 0)
    assert tied.gradient == 2 * apart.gradient


def test_the_experts_of_a_layer_are_one_weight():
    inputs = (JobInput("a", "x"), JobInput("b", "x"))
    jobs = tuple(
        TensorJob(
            f"model.layers.0.mlp.experts.{number}.up.weight", "linear", inputs, None, (), (8, 4), torch.float32, 0
        )
        for number in range(6)
    )
    plan = MergePlan(jobs, {"dtype": "float32"}, "a", False, (), OutputTokenizer(Path(), Path(), None, None))
    assert plan_gradient_memory(BackendConfig(), plan, "cpu", MicroBatch(1, 1, False)).gradient == 4 * 6 * 8 * 4


def test_the_step_that_is_foretold_is_the_one_of_the_backend() -> None:
    """A config.json, which leaves defaults out, and what transformers makes of it come to the same micro-batch."""
    plan = llama(256, 688, 2, 1000)
    built = AutoConfig.for_model(**plan.config).to_dict()
    parameters = sum(torch.Size(job.shape).numel() for job in plan.jobs)
    foretold = plan_step(BackendConfig(max_batch_tokens=5000), plan, "cpu").micro_batch
    assert foretold == plan_micro_batch(built, 4, parameters, 5000)
    assert foretold == MicroBatch(5000, 5000, checkpointing=False)


@pytest.mark.parametrize(("parameters", "checkpointing"), [(499_999_999, False), (500_000_000, True)])
def test_activations_and_logits_stay_within_bounds(parameters: int, checkpointing: bool) -> None:
    config = llama(4096, 11008, 32, 128_000).config
    batch = plan_micro_batch(config, 2, parameters, 32768)
    assert batch.checkpointing == checkpointing
    fits = batch.activation_bytes(config, 2) <= ACTIVATION_BYTES
    assert fits if checkpointing else batch.tokens == FEWEST_TOKENS
    assert batch.scored_tokens * 128_000 <= LOGITS_AT_ONCE or batch.scored_tokens == batch.tokens
    assert plan_micro_batch({"model_type": "unknown"}, 2, parameters, 32768).tokens == FEWEST_TOKENS


def test_a_step_that_does_not_fit_the_accelerator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = llama(4096, 11008, 32, 32000)
    for capacity, fits in ((24 * 10**9, True), (16 * 10**9, False)):
        monkeypatch.setattr(gradient_memory, "_capacity", lambda device, capacity=capacity: capacity)
        step = plan_step(BackendConfig(), plan, "cuda")
        assert step.micro_batch.checkpointing
        assert (step.too_large is None) == fits
    assert step.too_large is not None
    assert "has 16 GB. Set start: references" in step.too_large
