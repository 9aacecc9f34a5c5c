"""Inputs brought to a device, which here is the CPU, but for the last test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merge_core import Checkpoint, LiveMerge, Recipe
from merge_core.execute import to_live_model
from merge_core.execute.device_sources import DeviceSources
from merge_core.plan.tensor_job import JobInput

HOST = {name: torch.full((100,), float(number)) for number, name in enumerate("abcd")}


class Reads:
    """Counts how often each tensor is read."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(HOST, 0)

    def __call__(self, source: JobInput) -> torch.Tensor:
        self.counts[source.tensor] += 1
        return HOST[source.tensor]


def test_what_fits_is_read_once_and_the_rest_for_every_candidate():
    reads = Reads()
    sources = DeviceSources(torch.device("cpu"), reads, budget_bytes=2 * 400)
    for weight in (0.1, 0.2, 0.3):
        for name, tensor in HOST.items():
            assert torch.equal(sources.read(JobInput("model", name, (("weight", weight),))), tensor)
    assert reads.counts == {"a": 1, "b": 1, "c": 3, "d": 3}
    sources.close()


def test_what_was_requested_is_not_read_again():
    reads = Reads()
    sources = DeviceSources(torch.device("cpu"), reads, budget_bytes=0)
    sources.request([JobInput("model", "a"), JobInput("model", "b"), JobInput("model", "a")])
    assert torch.equal(sources.read(JobInput("model", "b")), HOST["b"])
    assert torch.equal(sources.read(JobInput("model", "a")), HOST["a"])
    assert reads.counts == {"a": 1, "b": 1, "c": 0, "d": 0}
    sources.close()


def test_an_error_while_reading_reaches_who_asks():
    def fail(source: JobInput) -> torch.Tensor:
        raise OSError("gone")

    sources = DeviceSources(torch.device("cpu"), fail, budget_bytes=0)
    sources.request([JobInput("model", "a")])
    with pytest.raises(OSError, match="gone"):
        sources.read(JobInput("model", "a"))
    sources.close()


def merged(directory: Path, device: str, budget: int | None, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Candidates of several methods, by way of `DeviceSources`."""
    checkpoints = {}
    for seed, name in enumerate(("base", "one", "two")):
        (directory / name).mkdir(exist_ok=True)
        (directory / name / "config.json").write_text('{"num_hidden_layers": 2}')
        generator = torch.Generator().manual_seed(seed)
        tensors = {f"model.layers.{i}.weight": torch.randn(64, 32, generator=generator) for i in range(2)}
        save_file(tensors, directory / name / "model.safetensors")
        checkpoints[name] = Checkpoint.open(directory / name)
    if budget is not None:
        monkeypatch.setattr(
            to_live_model, "DeviceSources", lambda device, read: DeviceSources(device, read, budget_bytes=budget)
        )
    results = []
    writer = LiveMerge(checkpoints, seed=1)
    for method in ("linear", "ties", "dare_ties", "della", "breadcrumbs", "slerp", "karcher", "arcee_fusion"):
        entries = [{"model": name, "parameters": {"weight": 0.5, "density": 0.5}} for name in ("one", "two")]
        entries = entries[:1] if method in ("slerp", "arcee_fusion") else entries
        mapping = {"merge_method": method, "models": entries, "parameters": {"t": 0.3}, "dtype": "bfloat16"}
        recipe = Recipe.from_mapping(mapping | ({} if method in ("linear", "karcher") else {"base_model": "base"}))
        live = {f"model.layers.{i}.weight": torch.zeros(64, 32, device=device) for i in range(2)}
        writer.write(recipe, live)
        results += [tensor.cpu() for tensor in live.values()]
    return results


def test_candidates_by_way_of_the_device_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = merged(tmp_path, "cpu", None, monkeypatch)
    # Every device but the CPU brings its inputs; here the CPU does too, with room for some of them.
    monkeypatch.setattr(to_live_model, "needs_sources", lambda device: True)
    for budget in (0, 20_000, 10**9):
        for ours, theirs in zip(merged(tmp_path, "cpu", budget, monkeypatch), expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("budget", [0, None])
def test_candidates_on_a_gpu_are_those_of_the_cpu(budget: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = merged(tmp_path, "cpu", None, monkeypatch)
    for ours, theirs in zip(merged(tmp_path, "cuda", budget, monkeypatch), expected, strict=True):
        assert torch.equal(ours, theirs)
