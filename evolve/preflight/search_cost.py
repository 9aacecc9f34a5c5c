"""What a search will need: of memory and disk exactly, of time roughly; before anything is loaded."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from evolve.config.machines import BackendConfig, WorkersConfig
from evolve.preflight.memory_plan import MemoryPlan, plan_memory
from merge_core import Checkpoint, MergePlan, repeated_outputs

_LARGE = 50_000_000  # parameters; with fewer, what is not multiplied takes as long
_WORTH_TELLING = 2.0  # times as fast


@dataclass(frozen=True)
class MergeSize:
    """Of a merged model: its parameters, and its bytes on disk."""

    parameters: int
    bytes: int


@dataclass(frozen=True)
class SearchCost:
    """What a search needs.

    Attributes:
        merged: size of a candidate.
        source_bytes: of all model files, mapped once per machine.
        memory: of one worker.
        tokens: that go through a candidate.
        seconds_per_candidate: None on a GPU, where only a trial would tell.
    """

    merged: MergeSize
    source_bytes: int
    memory: MemoryPlan
    tokens: float
    seconds_per_candidate: float | None


def merge_size(plan: MergePlan) -> MergeSize:
    """The size of what a plan makes."""
    return MergeSize(plan.parameter_count, sum(job.stored_bytes for job in plan.jobs))


def estimate_cost(
    plan: MergePlan, checkpoints: Mapping[str, Checkpoint], tokens: float, backend: BackendConfig, threads: int
) -> SearchCost:
    """Add up what a search needs.

    Args:
        plan: of a candidate.
        checkpoints: every model.
        tokens: that go through a candidate, over all items of all tasks.
        backend: how it is run.
        threads: CPU threads of a worker.
    """
    merged = merge_size(plan)
    held = merged.parameters
    if backend.name == "hf":  # where layers that are repeated are one
        repeated = repeated_outputs(plan)
        held -= sum(math.prod(job.shape) for job in plan.jobs if job.output in repeated)
    parts = {part.directories: part for checkpoint in checkpoints.values() for part in checkpoint.parts}
    source_bytes = sum(part.stored_bytes for part in parts.values())
    device = backend.device_here()
    operations = 2 * merged.parameters * tokens
    seconds = None
    if not device.startswith("cuda"):
        dtype: torch.dtype = getattr(torch, backend.options(plan.config, device).dtype)
        seconds = _seconds(source_bytes, operations, dtype, threads)
    memory = plan_memory(backend, plan.config, held, merged.bytes, device)
    memory = replace(memory, run_models=sum(checkpoint.held_bytes for checkpoint in checkpoints.values()))
    return SearchCost(merged, source_bytes, memory, tokens, seconds)


def workers_at_once(workers: WorkersConfig) -> float:
    """How many workers this machine's cores keep busy; where there are more, they take turns.

    Returns:
        From 1 to the number of workers.
    """
    return min(workers.count, max(_cores() / workers.threads, 1.0))


def crowding(workers: WorkersConfig) -> str | None:
    """What a person should know of more workers than cores."""
    at_once = workers_at_once(workers)
    if at_once >= workers.count:
        return None
    threads = f"{workers.threads} thread{'s' * (workers.threads > 1)}"
    return (
        f"workers.count: {workers.count} workers of {threads} take turns on {_cores()} cores: they are no faster than "
        f"{at_once:g}, and each holds a model of its own. Set workers.count: {int(at_once)}, or fewer workers.cpus"
    )


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def faster_precision(plan: MergePlan, backend: BackendConfig) -> str | None:
    """What a person should know where this processor computes in the merged model's bfloat16 far faster than asked."""
    options = backend.options(plan.config, backend.device_here())
    written = {job.dtype for job in plan.jobs}
    if options.device != "cpu" or options.dtype != "float32" or written != {torch.bfloat16}:
        return None
    if plan.parameter_count < _LARGE:
        return None
    faster = _operations_per_second(torch.bfloat16) / _operations_per_second(torch.float32)
    if faster < _WORTH_TELLING:
        return None
    return (
        f"backend.dtype: this processor multiplies in bfloat16, which candidates are written in, {faster:.0f} times as "
        "fast as in float32. Set backend.dtype: bfloat16"
    )


def _seconds(read_bytes: int, operations: float, dtype: torch.dtype, threads: int) -> float:
    """Every source is read once, and multiplied with, at speeds measured on the spot."""
    torch.set_num_threads(threads)
    block = torch.ones(8_000_000)
    started = time.perf_counter()
    block.clone()
    bytes_per_second = 2 * 4 * block.numel() / (time.perf_counter() - started)
    return read_bytes / bytes_per_second + operations / _operations_per_second(dtype)


def _operations_per_second(dtype: torch.dtype) -> float:
    """Of matrix products, the fastest of three; the first one also loads what computes them."""
    matrix = torch.ones(512, 512, dtype=dtype)
    taken = []
    for _ in range(4):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        taken.append(time.perf_counter() - started)
    return 2 * 512**3 / min(taken[1:])
