"""Candidates merged on a device, against its copy bandwidth and the link from the host.

    python benchmarks/gpu/merge_rates.py [--device cuda] [--megabytes 1000] [--models 3] [--rounds 5] [--methods ties]

bfloat16 checkpoints of matrices of 8 million entries; weights and densities are new for every candidate. "GB/s" counts
each input read once and the result written once, in bfloat16; "of copy" is that against a large copy on the same
device, reads and writes counted. "first" is the first candidate, which brings the sources; "prepare" what the next
four cost more than later ones. "streamed": none of the sources may stay, and every candidate brings all of them; its
rate is what crosses the link, against a large copy from pinned memory. "memory" is what a candidate allocates beside
parameters and sources. Medians.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.candidate_merge import NAMES, live_tensors, recipe
from benchmarks.gpu.environment import ceilings, clocked
from merge_core import Checkpoint, LiveMerge
from merge_core.execute import to_live_model
from merge_core.execute.device_sources import DeviceSources

SHAPE = (4096, 2048)
STREAMED = ("linear", "ties")
LONG = 4.0
"""Seconds after which no further rounds are made."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of a checkpoint")
    parser.add_argument("--models", type=int, default=3, help="models besides the base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(NAMES), choices=NAMES)
    options = parser.parse_args()
    device = torch.device(options.device)
    rates = ceilings(device, small=device.type == "cpu")
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        checkpoints = {
            model: write_checkpoint(Path(name) / model, seed, options.megabytes, device)
            for seed, model in enumerate(["base", *(f"model{index}" for index in range(options.models))])
        }
        count = sum(header.count for header in checkpoints["base"].tensors.values())
        print(f"{options.models} models and a base of {count / 1e6:.0f} M bfloat16 parameters, made in ", end="")
        print(f"{time.perf_counter() - started:.0f} s; copy {rates['copy']:.0f} GB/s, link {rates['link']:.1f} GB/s")
        print(f"{'method':<18}{'ms':>9}{'GB/s':>8}{'of copy':>9}{'first s':>9}{'prepare s':>11}{'memory':>10}", end="")
        print(f"{'streamed ms':>13}{'GB/s':>7}{'of link':>9}")
        for method in options.methods:
            print(row(method, checkpoints, count, options.rounds, device, rates), flush=True)


def row(
    method: str,
    checkpoints: dict[str, Checkpoint],
    count: int,
    rounds: int,
    device: torch.device,
    rates: dict[str, float],
) -> str:
    """One line of the table."""
    models = [name for name in checkpoints if name != "base"]
    read = 2 * count * (len(models) + (method != "linear"))
    live, generator = live_tensors(checkpoints["base"], device), random.Random(0)
    writer = LiveMerge(checkpoints)
    first, early, found, memory = measure(lambda: writer.write(recipe(method, models, generator), live), rounds, device)
    later, rate = statistics.median(found), (read + 2 * count) / statistics.median(found) / 1e9
    text = f"{method:<18}{later * 1e3:>9.2f}{rate:>8.0f}{rate / rates['copy']:>9.1%}{first:>9.2f}"
    text += f"{max(sum(early) - len(early) * later, 0.0):>11.2f}{memory / 1e6:>7.0f} MB"
    del writer
    if method not in STREAMED:
        return text
    to_live_model.DeviceSources = lambda device, read: DeviceSources(device, read, budget_bytes=0)
    writer = LiveMerge(checkpoints)
    _, _, found, _ = measure(lambda: writer.write(recipe(method, models, generator), live), min(rounds, 3), device)
    to_live_model.DeviceSources = DeviceSources
    rate = read / statistics.median(found) / 1e9
    return f"{text}{statistics.median(found) * 1e3:>13.1f}{rate:>7.1f}{rate / rates['link']:>9.1%}"


def measure(
    work: Callable[[], object], rounds: int, device: torch.device
) -> tuple[float, list[float], list[float], int]:
    """Seconds of the first call, of the next four, of later ones, and the bytes that a later one allocates."""
    first = clocked(work)[0]
    early = [clocked(work)[0] for _ in range(4)]
    before = 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    found = []
    while len(found) < rounds and sum(found) < LONG:
        found.append(clocked(work)[0])
    return first, early, found, torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0


def write_checkpoint(directory: Path, seed: int, megabytes: int, device: torch.device) -> Checkpoint:
    """A base, or a model near it; made on the device, where random numbers are fast."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    common, own = torch.Generator(device).manual_seed(0), torch.Generator(device).manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for index in range(max(2, round(megabytes * 1e6 / 2 / SHAPE[0] / SHAPE[1]))):
        base = torch.empty(SHAPE, device=device).normal_(0, 0.02, generator=common)
        difference = torch.empty(SHAPE, device=device).normal_(0, 0.002, generator=own) if seed else 0.0
        tensors[f"model.layers.{index % 2}.matrix{index}.weight"] = (base + difference).to(torch.bfloat16).cpu()
    save_file(tensors, directory / "model.safetensors")
    return Checkpoint.open(directory)


if __name__ == "__main__":
    main()
