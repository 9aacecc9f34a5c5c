"""Inputs brought to a device, which here is the CPU, but for the last test."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merge_core import Checkpoint, LiveMerge, Recipe
from merge_core.execute import device_sources, to_live_model
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
            source = JobInput("model", name, (("weight", weight),))
            sources.begin([source])
            assert torch.equal(sources.read(source), tensor)
    assert reads.counts == {"a": 1, "b": 1, "c": 3, "d": 3}
    sources.close()


def test_what_stays_gives_way_and_nothing_stays_after_that():
    reads = Reads()
    sources = DeviceSources(torch.device("cpu"), reads, budget_bytes=4 * 400)

    def read_all() -> None:
        for name, tensor in HOST.items():
            sources.begin([JobInput("model", name)])
            assert torch.equal(sources.read(JobInput("model", name)), tensor)

    read_all()
    read_all()
    assert set(reads.counts.values()) == {1}
    assert sources.give_way()
    assert not sources.give_way()
    read_all()
    read_all()
    assert set(reads.counts.values()) == {3}
    sources.close()


def test_what_was_requested_is_not_read_again():
    reads = Reads()
    sources = DeviceSources(torch.device("cpu"), reads, budget_bytes=0)
    sources.begin([JobInput("model", "a"), JobInput("model", "b")], [JobInput("model", "a")])
    assert torch.equal(sources.read(JobInput("model", "b")), HOST["b"])
    assert torch.equal(sources.read(JobInput("model", "a")), HOST["a"])
    assert reads.counts == {"a": 1, "b": 1, "c": 0, "d": 0}
    sources.close()


def test_a_job_that_takes_an_input_twice_has_it_brought_once_and_the_next_one_too():
    reads = Reads()
    sources = DeviceSources(torch.device("cpu"), reads, budget_bytes=0)
    for inputs in ("aba", "ac", "a"):
        sources.begin([JobInput("model", name) for name in inputs])
        for name in inputs:
            assert torch.equal(sources.read(JobInput("model", name)), HOST[name])
    assert reads.counts == {"a": 1, "b": 1, "c": 1, "d": 0}
    sources.close()


class LateCopies:
    """A stream on which nothing is done before somebody waits for it; in order, as on a stream.

    Attributes:
        moved: bytes.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.done = self.moved = 0
        self.lock = threading.Lock()  # copies are started by a thread

    def empty_like(self, stored: torch.Tensor) -> torch.Tensor:
        return torch.full_like(stored, 77)

    def start(self, target: torch.Tensor, staged: torch.Tensor) -> LateEvent:
        with self.lock:
            self.waiting.append((target, staged))
            return LateEvent(self, self.done + len(self.waiting))

    def arrive(self, tensor: torch.Tensor, copied: LateEvent) -> None:
        copied.synchronize()

    def run_until(self, place: int) -> None:
        with self.lock:
            while self.done < place:
                target, staged = self.waiting.pop(0)
                target.copy_(staged)
                self.done, self.moved = self.done + 1, self.moved + target.numel()


class LateEvent:
    def __init__(self, copies: LateCopies, place: int) -> None:
        self.copies, self.place = copies, place

    def synchronize(self) -> None:
        self.copies.run_until(self.place)


def test_no_buffer_is_filled_anew_and_no_tensor_used_before_its_copy_is_through(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_sources, "BUFFER_BYTES", 96)
    copies = LateCopies()
    stored = {
        "many pieces": torch.randn(1000),
        "one piece": torch.randn(5, 3).bfloat16(),
        "none": torch.empty(0, 4),
        "a number": torch.tensor(3.5, dtype=torch.float64),
        "turned": torch.randn(7, 30).T,
        "flags": torch.arange(300) % 3 == 0,
    }
    inputs = [JobInput("model", name) for name in stored]
    sources = DeviceSources(torch.device("cpu"), lambda source: stored[source.tensor], 0, copies)
    for _ in range(2):
        for place, source in enumerate(inputs):
            sources.begin([source], inputs[place + 1 : place + 3])
            assert torch.equal(sources.read(source), stored[source.tensor])
    assert copies.moved == 2 * sum(tensor.nbytes for tensor in stored.values())
    assert len(sources._buffers) == 2
    sources.close()


def test_an_error_while_reading_reaches_who_asks():
    def fail(source: JobInput) -> torch.Tensor:
        raise OSError("gone")

    sources = DeviceSources(torch.device("cpu"), fail, budget_bytes=0)
    sources.begin([JobInput("model", "a")])
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


def test_a_candidate_moves_what_its_genes_changed_and_that_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    merged(tmp_path, "cpu", None, monkeypatch)  # makes the checkpoints
    checkpoints = {name: Checkpoint.open(tmp_path / name) for name in ("base", "one", "two")}
    monkeypatch.setattr(to_live_model, "needs_sources", lambda device: True)
    writer, moved = LiveMerge(checkpoints), []

    def counted(device: torch.device, read: device_sources.Read) -> DeviceSources:
        return DeviceSources(device, lambda source: (moved.append((source.model, source.tensor)), read(source))[1], 0)

    monkeypatch.setattr(to_live_model, "DeviceSources", counted)
    live = {f"model.layers.{i}.weight": torch.zeros(64, 32) for i in range(2)}

    def candidate(first: float, last: float) -> list[tuple[str, str]]:
        moved.clear()
        entries = [{"model": name, "parameters": {"weight": [first, last]}} for name in ("one", "two", "base")]
        mapping = {"merge_method": "task_arithmetic", "base_model": "base", "models": entries, "dtype": "float32"}
        writer.write(Recipe.from_mapping(mapping), live)
        return sorted(moved)

    everything = [(model, name) for model in sorted(checkpoints) for name in live]
    assert candidate(0.5, 0.3) == everything  # the base once, though it is among the models too
    assert candidate(0.6, 0.3) == [(model, name) for model, name in everything if name == "model.layers.0.weight"]
    assert candidate(0.6, 0.3) == []
    assert candidate(0.6, 0.4) == [(model, name) for model, name in everything if name == "model.layers.1.weight"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("budget", [0, None])
def test_candidates_on_a_gpu_are_those_of_the_cpu(budget: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    expected = merged(tmp_path, "cpu", None, monkeypatch)
    for ours, theirs in zip(merged(tmp_path, "cuda", budget, monkeypatch), expected, strict=True):
        assert torch.equal(ours, theirs)
