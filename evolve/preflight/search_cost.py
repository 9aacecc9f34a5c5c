"""What a search will need: of memory and disk exactly, of time roughly; before anything is loaded."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from evolve.config.machines import BackendConfig, WorkersConfig
from evolve.preflight.memory_plan import MemoryPlan, plan_memory
from merge_core import Checkpoint, MergePlan, repeated_outputs


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
    return MergeSize(plan.parameter_count, sum(math.prod(job.shape) * job.dtype.itemsize for job in plan.jobs))


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
    headers = [header for checkpoint in checkpoints.values() for header in checkpoint.tensors.values()]
    source_bytes = sum(math.prod(header.shape) * header.dtype.itemsize for header in headers)
    device = planned_device(backend)
    operations = 2 * merged.parameters * tokens
    seconds = None if device.startswith("cuda") else _seconds(source_bytes, operations, threads)
    memory = plan_memory(backend, plan.config, held, merged.bytes, device)
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


def planned_device(backend: BackendConfig) -> str:
    """What `device: auto` comes to on this machine."""
    if backend.device != "auto":
        return backend.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _seconds(read_bytes: int, operations: float, threads: int) -> float:
    """Every source is read once, and multiplied with, at speeds measured on the spot."""
    torch.set_num_threads(threads)
    block = torch.ones(8_000_000)
    matrix = torch.ones(512, 512)
    torch.mm(matrix, matrix)
    started = time.perf_counter()
    block.clone()
    copied = time.perf_counter()
    torch.mm(matrix, matrix)
    multiplied = time.perf_counter()
    bytes_per_second = 2 * 4 * block.numel() / (copied - started)
    operations_per_second = 2 * 512**3 / (multiplied - copied)
    return read_bytes / bytes_per_second + operations / operations_per_second
