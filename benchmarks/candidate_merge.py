"""One candidate merged in memory: nanoseconds per parameter by method, against the memory's bandwidth.

    python benchmarks/candidate_merge.py [--megabytes 200] [--models 3] [--rounds 5] [--threads 2] [--device cuda]

Ours is `LiveMerge` writing bfloat16 parameters from memory-mapped bfloat16 checkpoints; weights and densities
are new in every round. The bound copies as many bytes as the method must read and write once, with the same
threads. The naive form stacks the models in float32 and sums, and sorts for what is kept. Ours and the bound take
turns; the table has the least of each, in processor time of all threads together: what else runs on the machine hardly
changes that (with several threads torch's waiting ones count too: compare ratios with one). "prepare" is what the
first five candidates cost more than five later ones, on the mean: by then all that can be known beforehand is. Five
others before them compile every kernel and bring the pages in; what they found out is forgotten. With --device the
live model is there, and time is the clock's; the bound then copies as many bytes on the device, and GB/s are those of
the merge's reads and writes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from merge_core import METHODS, Checkpoint, LiveMerge, Recipe

NAMES = (
    "linear",
    "task_arithmetic",
    "ties",
    "breadcrumbs",
    "breadcrumbs_ties",
    "dare_linear",
    "dare_ties",
    "della_linear",
    "della",
)
COLUMNS = 2048
FIRST = 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200, help="size of a checkpoint")
    parser.add_argument("--models", type=int, default=3, help="models besides the base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="where the live model is")
    parser.add_argument("--methods", nargs="+", default=list(NAMES), choices=NAMES)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        checkpoints = {}
        for index in range(options.models + 1):
            model = "base" if index == 0 else f"model{index}"
            checkpoints[model] = write_checkpoint(Path(name) / model, index, options.megabytes)
        count = sum(header.count for header in checkpoints["base"].tensors.values())
        print(
            f"{options.models} models and a base of {count / 1e6:.0f} M bfloat16 parameters, {options.threads} threads"
        )
        header = f"{'ns per parameter':<20}{'bound':>8}{'ours':>8}{'/ bound':>9}{'GB/s':>7}"
        print(header + f"{'naive':>8}{'naive / ours':>14}{'prepare':>9}")
        for method in options.methods:
            compare(method, checkpoints, count, options.rounds, Path(name) / "statistics", torch.device(options.device))


def write_checkpoint(directory: Path, seed: int, megabytes: int) -> Checkpoint:
    """Matrices of 8 million entries in two layers."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    common, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    shape = (4096, COLUMNS)
    tensors = {}
    for index in range(max(2, round(megabytes * 1e6 / 2 / 4096 / COLUMNS))):
        base = torch.empty(shape).normal_(0, 0.02, generator=common)
        difference = torch.empty(shape).normal_(0, 0.002, generator=own) if seed else 0.0
        tensors[f"model.layers.{index % 2}.matrix{index}.weight"] = (base + difference).to(torch.bfloat16)
    save_file(tensors, directory / "model.safetensors")
    return Checkpoint.open(directory)


def compare(
    method: str, checkpoints: dict[str, Checkpoint], count: int, rounds: int, kept: Path, device: torch.device
) -> None:
    """One row of the table."""
    generator = random.Random(0)
    live_merge, live = LiveMerge(checkpoints, statistics_cache=kept), live_tensors(checkpoints["base"], device)
    models = [name for name in checkpoints if name != "base"]
    reads = len(models) + (method != "linear")

    def ours() -> None:
        live_merge.write(recipe(method, models, generator), live)

    seconds: dict[str, list[float]] = {"ours": [], "bound": [], "naive": []}
    for _ in range(FIRST):  # compiles the kernels, and brings the pages in
        ours()
    shutil.rmtree(kept, ignore_errors=True)
    live_merge = LiveMerge(checkpoints, statistics_cache=kept)
    first = sum(timed(ours, device) for _ in range(FIRST))
    for _ in range(rounds):
        seconds["bound"].append(timed(lambda: copy(checkpoints, live, reads), device))
        seconds["ours"].append(timed(ours, device))
    seconds["naive"].append(timed(lambda: naive(method, checkpoints, models, live), device))
    bound, mine, other = (min(seconds[name]) / count * 1e9 for name in ("bound", "ours", "naive"))
    rate = 2 * (reads + 1) / mine
    # The naive form merges one tensor.
    other *= len(live)
    prepare = max(first - FIRST * statistics.mean(seconds["ours"]), 0.0) / count * 1e9
    row = f"{method:<20}{bound:>8.2f}{mine:>8.2f}{mine / bound:>8.1f}x{rate:>7.1f}"
    print(f"{row}{other:>8.1f}{other / mine:>13.1f}x{prepare:>9.1f}")


def live_tensors(checkpoint: Checkpoint, device: torch.device) -> dict[str, Tensor]:
    """Parameters to write to."""
    headers = checkpoint.tensors.items()
    return {name: torch.empty(header.shape, dtype=header.dtype, device=device) for name, header in headers}


def recipe(method: str, models: list[str], generator: random.Random) -> Recipe:
    """A candidate with random weights and densities."""
    known = METHODS[method].by_name
    listed = []
    for model in models:
        own = {"weight": generator.uniform(0.2, 0.8), "density": generator.uniform(0.3, 0.7), "epsilon": 0.1}
        listed.append({"model": model, "parameters": {key: value for key, value in own.items() if key in known}})
    mapping: dict[str, Any] = {"merge_method": method, "models": listed, "dtype": "bfloat16"}
    return Recipe.from_mapping(mapping | ({} if method == "linear" else {"base_model": "base"}))


def copy(checkpoints: dict[str, Checkpoint], live: dict[str, Tensor], reads: int) -> None:
    """Read as many tensors as the merge has inputs, write one: copying reads one and writes one."""
    if next(iter(live.values())).device.type != "cpu":
        for target in live.values():  # a copy reads and writes: so many of them as move the same bytes
            other = torch.empty_like(target)
            for _ in range(-(-(reads + 1) // 2)):
                other.copy_(target)
        return
    for name, target in live.items():
        target.copy_(checkpoints["base"].read(name))
        for checkpoint in list(checkpoints.values())[1:reads]:
            # A maximum reads and writes nothing.
            checkpoint.read(name).view(torch.int16).amax()


def naive(method: str, checkpoints: dict[str, Checkpoint], models: list[str], live: dict[str, Tensor]) -> None:
    """The first tensor, by stacking, sorting and summing in float32."""
    name, target = next(iter(live.items()))
    stack = torch.stack([checkpoints[model].read(name).to(target.device).float() for model in models])
    weights = torch.full((len(models), 1, 1), 0.4, device=target.device)
    if method == "linear":
        target.copy_((stack * weights).sum(dim=0) / weights.sum())
        return
    base = checkpoints["base"].read(name).to(target.device).float()
    deltas = stack - base
    if method.startswith(("ties", "breadcrumbs")):
        flat = deltas.view(len(models), -1)
        ranks = flat.abs().argsort(dim=1, descending=True)
        mask = torch.zeros_like(flat).scatter_(1, ranks[:, : flat.shape[1] // 2], 1.0)
        deltas = deltas * mask.view_as(deltas)
    elif method.startswith("della"):
        probability = deltas.abs().argsort(dim=-1).argsort(dim=-1) / COLUMNS * 0.2 + 0.4
        deltas = deltas * torch.bernoulli(probability)
    elif method.startswith("dare"):
        deltas = deltas * torch.bernoulli(torch.full_like(deltas, 0.5)) / 0.5
    terms = deltas * weights
    if method.endswith("ties") or method == "della":
        agrees = terms.sign() == terms.sum(dim=0).sign()
        terms = terms * agrees / (weights * agrees).sum(dim=0).clamp_min(1e-8)
    target.copy_(base + terms.sum(dim=0))


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: of the processor, and of the clock where a device works beside it."""
    clock = time.perf_counter if device.type != "cpu" else time.process_time
    started = clock()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


if __name__ == "__main__":
    main()
