"""Results on an accelerator are looked at together, when all are written. The accelerator here is plain torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from merge_core import Checkpoint, LiveMerge, MergeError, Recipe
from merge_core.execute import to_live_model
from merge_core.kernels import dispatch, eager

NAMES = [f"model.layers.{layer}.weight" for layer in range(4)]


def combine(
    sources: Sequence[Tensor],
    base: Tensor | None,
    rules: Sequence[Any],
    factors: Sequence[float],
    weights: Sequence[float],
    elect: bool,
    scaling: float,
    out: Tensor,
    dtype: torch.dtype,
    largest: Callable[[], int] | None = None,
) -> bool:
    """What the kernel of a card does, whose numbers nobody waits for."""
    result = eager.combined(sources, base, rules, factors, weights, elect, scaling).to(dtype)
    out.copy_(result)
    bits = int(eager.magnitude_bits(result.float()).max())
    if largest is not None:
        number = ctypes.c_int32.from_address(largest())
        number.value = max(number.value, bits)
    return largest is not None or bits < 0x7F800000


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Checkpoint]:
    found = {}
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"num_hidden_layers": 4}')
        generator = torch.Generator().manual_seed(seed)
        tensors = {tensor: 1 + torch.rand(8, 16, generator=generator) for tensor in NAMES}
        save_file(tensors, tmp_path / name / "model.safetensors")
        found[name] = Checkpoint.open(tmp_path / name)
    card = SimpleNamespace(combine=combine, is_finite=eager.is_finite)
    monkeypatch.setattr(dispatch, "kernels", lambda device: card)
    return found


def candidate(weights: Sequence[float]) -> Recipe:
    """One weight a layer for the first model."""
    models = [
        {"model": "a", "parameters": {"weight": list(weights)}},
        {"model": "b", "parameters": {"weight": [weight / 4 for weight in weights]}},
    ]
    mapping = {"merge_method": "linear", "models": models, "parameters": {"normalize": False}, "dtype": "float16"}
    return Recipe.from_mapping(mapping)


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ([1.0, 1e6, 1e6, 1.0], rf"{NAMES[1]}: the merged values do not fit float16"),
        ([1.0, 0.5, 1e-30, 1.0], rf"{NAMES[2]}: every merged value is 0 in float16"),
    ],
)
def test_a_late_look_finds_what_a_look_at_once_finds_and_the_next_candidate_is_right(
    checkpoints: dict[str, Checkpoint], weights: list[float], error: str, monkeypatch: pytest.MonkeyPatch
):
    good, looks = [1.0, 0.5, 0.25, 0.75], []
    read = to_live_model.LargestMagnitudes.read
    monkeypatch.setattr(to_live_model.LargestMagnitudes, "read", lambda self: looks.append(self.count) or read(self))
    for late in (False, True):
        monkeypatch.setattr(to_live_model, "needs_sources", lambda device, late=late: late)
        live_merge, live = LiveMerge(checkpoints), {name: torch.zeros(8, 16) for name in NAMES}
        live_merge.write(candidate(good), live)
        wanted = {name: tensor.clone() for name, tensor in live.items()}
        with pytest.raises(MergeError, match=error):
            live_merge.write(candidate(weights), live)
        live_merge.write(candidate(good), live)
        assert all(torch.equal(wanted[name], live[name]) for name in NAMES)
    assert looks[0] == len(NAMES)
    assert len(looks) == 3


def test_zeros_that_are_asked_for_are_no_error(checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(to_live_model, "needs_sources", lambda device: True)
    live = {name: torch.ones(8, 16) for name in NAMES}
    models = [{"model": "b"}, {"model": "a", "parameters": {"weight": 0.0}}]
    mapping = {"merge_method": "task_arithmetic", "base_model": "b", "models": models, "dtype": "float16"}
    LiveMerge(checkpoints).write(Recipe.from_mapping(mapping), live)
    expected = checkpoints["b"].read(NAMES[0]).to(torch.float16).float()
    assert torch.equal(live[NAMES[0]], expected)
