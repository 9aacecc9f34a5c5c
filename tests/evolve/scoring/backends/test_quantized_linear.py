"""Weights held in fewer bits, against rounding by hand in float64, and what a live model takes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evolve.scoring.backends.hf import HFBackend
from evolve.scoring.backends.quantized_linear import (
    NormalFloat4,
    QuantizedLinear,
    ScaledRows,
    quantized_bytes,
)
from evolve.scoring.language_model import GenerationSettings
from merge_core import LiveMerge, ModelReference, Recipe, live_parameters, open_checkpoints

needs_bitsandbytes = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BITS = ["8bit", "fp8", pytest.param("4bit", marks=needs_bitsandbytes)]
CPU = torch.device("cpu")


def held(weight: torch.Tensor, bits: str) -> QuantizedLinear:
    if bits == "4bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta", dtype=weight.dtype)
    kind = {"8bit": torch.int8, "fp8": torch.float8_e4m3fn}
    made = NormalFloat4(linear, CPU) if bits == "4bit" else ScaledRows(linear, CPU, kind[bits])
    made.pack(weight.clone())
    return made


def levels_of(bits: str) -> torch.Tensor:
    """What a code can stand for, in float64, the largest 1."""
    if bits == "8bit":
        return torch.arange(-127, 128, dtype=torch.float64) / 127
    if bits == "fp8":  # 4 bits of exponent with bias 7, 3 of mantissa; all ones is no number
        above = [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
        below = [m / 8 * 2.0**-6 for m in range(8)]
        values = torch.tensor([*below, *above], dtype=torch.float64)
        return torch.cat([-values.flip(0), values]) / 448
    # The quantiles of a normal distribution as the paper defines them: eight below nought, nine above, nought shared.
    normal = torch.distributions.Normal(0.0, 1.0)
    offset = 1 - 0.5 * (1 / 32 + 1 / 30)  # 0.9677
    above_nought = normal.icdf(torch.linspace(offset, 0.5, 9, dtype=torch.float64))[:-1]
    below_nought = -normal.icdf(torch.linspace(offset, 0.5, 8, dtype=torch.float64))[:-1]
    return torch.cat([below_nought, torch.zeros(1, dtype=torch.float64), above_nought.flip(0)]) / above_nought[0]


def rounded(weight: torch.Tensor, bits: str) -> torch.Tensor:
    """By hand: in blocks of a row, or of 64 successive weights."""
    flat, levels, found = weight.double().flatten(), levels_of(bits), []
    size = 64 if bits == "4bit" else weight.shape[1]
    for start in range(0, len(flat), size):
        block = flat[start : start + size]
        scale = block.abs().max()
        near = levels[(block[:, None] / scale - levels).abs().argmin(dim=1)] if scale > 0 else torch.zeros_like(block)
        found.append(near * scale)
    return torch.cat(found).view(weight.shape)


@pytest.mark.parametrize("bits", BITS)
def test_every_weight_is_the_nearest_that_its_bits_can_hold(bits: str) -> None:
    weight = torch.randn(6, 100, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    weight[4] *= 1e-20
    found, expected = held(weight, bits).unpacked().double(), rounded(weight, bits)
    scale = weight.abs().amax(dim=1, keepdim=True).double()
    assert ((found - expected).abs() <= 2e-6 * scale.clamp(min=1e-30) + (1e-6 if bits == "4bit" else 0)).all()
    assert torch.equal(found[2], torch.zeros(100)) or bits == "4bit"  # whose blocks are of two rows


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_computes_with_what_its_bits_stand_for(bits: str, dtype: torch.dtype) -> None:
    weight = (torch.randn(64, 96, generator=torch.Generator().manual_seed(1)) * 0.02).to(dtype)
    states = torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(2)).to(dtype)
    layer = held(weight, bits)
    assert torch.equal(layer(states), nn.functional.linear(states, layer.unpacked()))
    assert layer.unpacked().dtype == dtype


@pytest.fixture
def checkpoints(make_model: Any, tokenizer: Any, tmp_path: Path) -> Any:
    for seed in range(2):
        make_model(seed=seed).to(torch.bfloat16).save_pretrained(tmp_path / f"m{seed}")
        tokenizer.save_pretrained(tmp_path / f"m{seed}")
    return open_checkpoints([ModelReference.parse(str(tmp_path / f"m{seed}")) for seed in range(2)])


def recipe_of(checkpoints: Any, weight: float | list[Any]) -> Recipe:
    first, second = checkpoints
    models = [{"model": first, "parameters": {"weight": 1.0}}, {"model": second, "parameters": {"weight": weight}}]
    return Recipe.from_mapping({"merge_method": "linear", "models": models, "dtype": "bfloat16"})


def open_live(checkpoints: Any, bits: str | None) -> HFBackend:
    first = next(iter(checkpoints.values()))
    return HFBackend.from_config(first.config, first.directory, torch.bfloat16, quantization=bits)


@pytest.mark.parametrize("bits", BITS)
def test_candidates_are_written_into_bits_and_scored_as_the_rounded_model(bits: str, checkpoints: Any) -> None:
    if bits == "4bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    backend, oracle = open_live(checkpoints, bits), open_live(checkpoints, None)
    merge, plain_merge = LiveMerge(checkpoints), LiveMerge(checkpoints)
    told = []
    for weight in (0.5, [{"filter": "mlp", "value": 0.9}, {"value": 0.5}]):
        recipe = recipe_of(checkpoints, weight)
        report = merge.write(recipe, live_parameters(backend.model))
        plain_merge.write(recipe, live_parameters(oracle.model))
        requests = [oracle.prepare_continuation(context, "end") for context in ("abc", "some longer context", "")]
        plain = oracle.loglikelihood(requests)
        written = {name: one.clone() for name, one in oracle.model.state_dict().items()}
        for name, module in oracle.model.named_modules():
            if isinstance(module, nn.Linear) and name != "lm_head":
                module.weight.data.copy_(held(module.weight.data, bits).unpacked())
        assert backend.loglikelihood(requests) == oracle.loglikelihood(requests) != plain
        asked = [backend.prepare_generation("abc", GenerationSettings((), 8))]
        assert backend.generate(asked) == oracle.generate(asked)
        oracle.model.load_state_dict(written)
        told.append(plain)
    assert told[0] != told[1]
    mlp = sum("mlp" in job.output for job in report.plan.jobs)
    assert (report.merged, report.skipped) == (mlp, len(report.plan.jobs) - mlp)  # only what changed is rounded anew


@pytest.mark.parametrize("bits", BITS)
def test_a_live_model_takes_what_was_foreseen(bits: str, checkpoints: Any) -> None:
    if bits == "4bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model = open_live(checkpoints, bits).model
    buffers = [buffer for name, buffer in model.named_buffers() if name.endswith((".codes", ".scales"))]
    memory = {one.data_ptr(): one.nbytes for one in [*model.parameters(), *buffers] if not one.is_meta}
    config = next(iter(checkpoints.values())).config
    total, largest = quantized_bytes(config, bits, 2)
    assert sum(memory.values()) == total
    assert largest == 2 * max(
        module.weight.numel() for module in model.modules() if isinstance(module, QuantizedLinear)
    )
