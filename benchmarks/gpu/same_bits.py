"""Every merge method on the CPU and on a device, from the same random checkpoints: are the bits the same?

    python benchmarks/gpu/same_bits.py [--device cuda]

Five candidates with densities and weights of their own are merged into live parameters one after the other, as a
search does, so that what is remembered of the sources is used too. "kept": sources stay on the device. "streamed":
none may, and every candidate copies them again. "disk": `merge(..., device=...)` to a model directory. A cell is
"same", or how many of the entries differ, the largest difference, and that in steps of the output's precision.
"slopes": the derivatives by parameters, of random gradients; "same", or the largest relative difference.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merge_core import METHODS, Checkpoint, LiveMerge, MergeError, Recipe, build_plan, merge, plan_parameters
from merge_core.execute import to_live_model
from merge_core.execute.device_sources import DeviceSources
from merge_core.execute.job_runner import JobRunner

MODELS = ("one", "two", "three")
SHAPES = {"model.embed_tokens.weight": (999, 512), "model.norm.weight": (512,)} | {
    f"model.layers.{layer}.{name}.weight": shape
    for layer in range(2)
    for name, shape in {"mlp": (700, 333), "attention": (512, 512), "vector": (513,)}.items()
}
CANDIDATES = 5
SEED = 1


def main() -> None:
    """Prints the table; exits with 1 when a method cannot be merged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    failed = False
    print(f"{'method':<18}{'output':<10}{'kept':<32}{'streamed':<32}{'disk':<20}{'slopes':<10}")
    with tempfile.TemporaryDirectory() as name:
        for source_dtype, output in ((torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)):
            folder = Path(name) / str(output)
            checkpoints = {
                model: write_checkpoint(folder / model, seed, source_dtype)
                for seed, model in enumerate(("base", *MODELS))
            }
            for method in METHODS:
                row = f"{method:<18}{str(output).removeprefix('torch.'):<10}"
                try:
                    row += compare(method, checkpoints, folder, output, options.device)
                except (RuntimeError, MergeError) as error:
                    failed = True
                    row += f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:90]}"
                print(row, flush=True)
    sys.exit(int(failed))


def compare(method: str, checkpoints: dict[str, Checkpoint], folder: Path, dtype: torch.dtype, device: str) -> str:
    """Three cells of the table."""
    recipes = [recipe(method, dtype, number) for number in range(CANDIDATES)]
    expected = candidates(recipes, checkpoints, "cpu", dtype, None)
    cells = [differences(candidates(recipes, checkpoints, device, dtype, budget), expected) for budget in (None, 0)]
    written = folder / f"{method}-merged"
    merge(recipes[-1], written, models={model: folder / model for model in checkpoints}, seed=SEED, device=device)
    disk = differences([load_file(written / "model.safetensors")], expected[-1:])
    return f"{cells[0]:<32}{cells[1]:<32}{disk:<20}{compare_slopes(recipes[-1], checkpoints, device):<10}".rstrip()


def compare_slopes(candidate: Recipe, checkpoints: dict[str, Checkpoint], device: str) -> str:
    """The last cell of the table."""
    largest = 0.0
    generator = torch.Generator().manual_seed(SEED)
    plan = build_plan(candidate, checkpoints, SEED)
    if not plan_parameters(plan):
        return "none"
    for job in plan.jobs:
        gradient = torch.randn(job.shape, generator=generator).to(job.dtype)
        expected = JobRunner(checkpoints).differentiate(job, gradient)
        found = JobRunner(checkpoints, device).differentiate(job, gradient.to(device))
        scale = max(map(abs, expected.values())) or 1.0  # a number that changes no entry has a slope of 0
        largest = max(largest, *(abs(found[slot] - value) / scale for slot, value in expected.items()))
    return f"{largest:.1e}" if largest else "same"


def candidates(
    recipes: list[Recipe], checkpoints: dict[str, Checkpoint], device: str, dtype: torch.dtype, budget: int | None
) -> list[dict[str, Tensor]]:
    """What each candidate leaves in the live parameters."""
    live = {name: torch.full(shape, torch.nan, dtype=dtype, device=device) for name, shape in SHAPES.items()}
    original = to_live_model.DeviceSources
    if budget is not None:
        to_live_model.DeviceSources = lambda device, read: DeviceSources(device, read, budget_bytes=budget)
    try:
        writer, results = LiveMerge(checkpoints, seed=SEED), []
        for candidate in recipes:
            writer.write(candidate, live)
            results.append({name: tensor.cpu().clone() for name, tensor in live.items()})
    finally:
        to_live_model.DeviceSources = original
    return results


def differences(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> str:
    """``same``, or how they differ."""
    different, entries, largest, steps = 0, 0, 0.0, 0
    for one, two in zip(ours, theirs, strict=True):
        for name, expected in two.items():
            found = one[name]
            unequal = bits(found) != bits(expected)
            different += int(unequal.sum())
            entries += expected.numel()
            if unequal.any():
                largest = max(largest, float((found.double() - expected.double()).abs().max()))
                steps = max(steps, int((ordered(found) - ordered(expected)).abs().max()))
    return "same" if not different else f"{different / entries:.1e}, {largest:.1e}, {steps} steps"


def bits(tensor: Tensor) -> Tensor:
    """The entries as integers."""
    return tensor.view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def ordered(tensor: Tensor) -> Tensor:
    """Integers that count the representable numbers."""
    raw = bits(tensor).long()
    lowest = -(1 << (8 * tensor.element_size() - 1))
    return torch.where(raw < 0, lowest - raw, raw)


def write_checkpoint(directory: Path, seed: int, dtype: torch.dtype) -> Checkpoint:
    """A base, or a model near it."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"num_hidden_layers": 2, "tie_word_embeddings": True}))
    common, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    tensors = {
        name: (
            0.02 * torch.randn(shape, generator=common) + (0.002 if seed else 0.0) * torch.randn(shape, generator=own)
        ).to(dtype)
        for name, shape in SHAPES.items()
    }
    save_file(tensors, directory / "model.safetensors")
    return Checkpoint.open(directory)


def recipe(method: str, dtype: torch.dtype, number: int) -> Recipe:
    """A candidate of a method, with as many models as it takes."""
    row, generator = METHODS[method], random.Random(number)
    count = min(len(MODELS), row.maximum_models or len(MODELS))
    entries: list[dict[str, Any]] = []
    for model in MODELS[:count]:
        own = {
            "weight": generator.uniform(0.2, 0.8),
            "density": generator.uniform(0.3, 0.7),
            "gamma": 0.01,
            "scale": generator.uniform(0.5, 1.0),
        }
        if method.startswith("della"):
            own["epsilon"] = 0.1
        entries.append({"model": model, "parameters": {key: value for key, value in own.items() if key in row.by_name}})
    mapping: dict[str, Any] = {"merge_method": method, "models": entries, "dtype": str(dtype).removeprefix("torch.")}
    shared = {"t": generator.uniform(0.001, 0.5), "select_topk": 0.5, "lambda": 0.9}
    mapping["parameters"] = {key: value for key, value in shared.items() if key in row.by_name}
    return Recipe.from_mapping(mapping | ({"base_model": "base"} if row.base == "required" else {}))


if __name__ == "__main__":
    main()
