"""Gradients of a loss by a recipe's numbers, against finite differences of the loss of a merge made in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from merge_core import (
    Checkpoint,
    LiveGradient,
    LiveMerge,
    ParameterSlot,
    Recipe,
    live_parameters,
)
from tests.merge_core.tiny_families import TOKENS, new_model

MakeModel = Callable[..., Path]
STEP = 1e-4


@contextmanager
def all_in_float64() -> Iterator[None]:
    """Parts of the models fall back to float32, in which differences have no digits; here they do not."""
    to, float_, softmax = Tensor.to, Tensor.float, nn.functional.softmax

    def stay(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        asked = options.get("dtype", args[0] if args else None)
        return tensor if tensor.dtype == torch.float64 and asked is torch.float32 else to(tensor, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "to", stay)
        patch.setattr(Tensor, "float", lambda tensor: tensor if tensor.dtype == torch.float64 else float_(tensor))
        patch.setattr(nn.functional, "softmax", lambda values, dim=None, dtype=None: softmax(values, dim=dim))
        yield


def loss(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    with all_in_float64():
        logits = model(input_ids=tokens, use_cache=False).logits
    return nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])


def by_gradient(model: nn.Module, live_merge: LiveMerge, recipe: Recipe) -> dict[str, dict[ParameterSlot, float]]:
    report = live_merge.write(recipe, live_parameters(model))
    with LiveGradient(live_merge, report.plan, model) as gradient:
        loss(model).backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    return gradient.totals


def task_arithmetic(weights: dict[str, Any], scaling: Any = 1.0, **keys: Any) -> Recipe:
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()]
    mapping = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
    return Recipe.from_mapping({**mapping, "parameters": {"lambda": scaling}, "dtype": "float32", **keys})


def sums_by_name(totals: dict[str, dict[ParameterSlot, float]]) -> dict[ParameterSlot, float]:
    found: dict[ParameterSlot, float] = {}
    for slots in totals.values():
        for slot, value in slots.items():
            found[slot] = found.get(slot, 0.0) + value
    return found


def write_exactly(parameters: dict[str, Tensor], checkpoints: dict[str, Checkpoint], weights: dict[str, float]) -> None:
    """``b + Σ wᵢ (xᵢ − b)`` in float64, into a live model of that precision."""
    for name in checkpoints["base"].tensors:
        base = checkpoints["base"].read(name).double()
        merged = base.clone()
        for model, weight in weights.items():
            merged += weight * (checkpoints[model].read(name).double() - base)
        parameters[name].detach().copy_(merged)


def open_family(family: str, directory: Path, **changes: Any) -> dict[str, Checkpoint]:
    for seed, name in enumerate(("base", "a", "b")):
        model = new_model(family, 0, **changes)
        torch.manual_seed(seed + 10)
        if name != "base":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(directory / name)
    return {name: Checkpoint.open(directory / name) for name in ("base", "a", "b")}


@pytest.mark.parametrize("family", ["llama", "qwen2", "mixtral", "qwen3_moe"])
def test_the_gradient_of_every_weight_is_that_of_the_loss(family: str, tmp_path: Path):
    checkpoints = open_family(family, tmp_path)
    model = (
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "base", experts_implementation="eager"))
        .double()
        .eval()
    )
    weights = {"a": 0.4, "b": 0.7}
    found = sums_by_name(by_gradient(model, LiveMerge(checkpoints), task_arithmetic(weights)))
    parameters = live_parameters(model)

    def loss_at(**changed: float) -> float:
        write_exactly(parameters, checkpoints, {**weights, **changed})
        with torch.no_grad():
            return float(loss(model))

    for position, name in enumerate("ab"):
        expected = (loss_at(**{name: weights[name] + STEP}) - loss_at(**{name: weights[name] - STEP})) / (2 * STEP)
        assert found[ParameterSlot("weight", position)] == pytest.approx(expected, rel=1e-5, abs=1e-6)
