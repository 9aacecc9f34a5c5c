"""What one step of the gradient start needs in memory, from configs and headers alone.

A step holds the live model, what a micro-batch leaves behind for the backward pass, and one weight's gradient, which
is contracted with the sources of that weight, or with merges of it, and thrown away
(`merge_core.LiveGradient`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import torch

from evolve.config.machines import BackendConfig
from evolve.report.formatting import format_bytes
from evolve.scoring.backends.activation_memory import MicroBatch, plan_micro_batch, stated_size, text_config
from evolve.scoring.backends.backend_options import default_batch_tokens
from merge_core import METHODS, MergePlan
from merge_core.plan.tensor_job import TensorJob

CUDA_BYTES = 500_000_000
"""What CUDA takes of a card beside tensors: its context and its libraries' kernels."""


@dataclass(frozen=True)
class GradientMemory:
    """Bytes of one step.

    Attributes:
        live_model: the weights that compute.
        gradient: of the largest weight; with a tied head also the head's, which waits for the embedding's.
        sources: the inputs of the largest tensor on their way; 0 on a CPU, which maps the files. Sources that stay on
            an accelerator are in what is free there, and give way where a step needs it.
        merges: a result of the largest tensor whose method takes a merge for some number's slope, in float32; 0 where
            the CPU makes them, as an accelerator has no room.
        activations: of the layers, for one micro-batch.
        loss: logits, their softmax and the gradients of both.
    """

    live_model: int
    gradient: int
    sources: int
    merges: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.live_model + self.gradient + self.sources + self.merges + self.activations + self.loss

    def fits(self, capacity: int) -> bool:
        """Whether a step fits an accelerator with so many bytes."""
        return self.total + CUDA_BYTES <= capacity


@dataclass(frozen=True)
class StepPlan:
    """One step as it will be made.

    Attributes:
        micro_batch: what is run at once.
        memory: what it holds at its peak.
        too_large: why it does not fit the accelerator that is there; None where it fits, or none is there.
    """

    micro_batch: MicroBatch
    memory: GradientMemory
    too_large: str | None = None


def plan_step(backend: BackendConfig, plan: MergePlan, device: str, capacity: int | None = None) -> StepPlan:
    """What a step of the gradient start will hold, and whether the accelerator has as much.

    Args:
        backend: as in the search file.
        plan: of a candidate.
        device: what `device: auto` comes to, such as cpu or cuda:1.
        capacity: bytes of the accelerator; None for the one that is there.
    """
    micro_batch = planned_micro_batch(backend, plan, device)
    memory = plan_gradient_memory(backend, plan, device, micro_batch)
    capacity = capacity or _capacity(device)
    if capacity is not None and not memory.fits(capacity):
        memory = replace(memory, merges=0)
    if capacity is None or memory.fits(capacity):
        return StepPlan(micro_batch, memory)
    needed = f"{format_bytes(memory.total)} and {format_bytes(CUDA_BYTES)} for CUDA itself"
    return StepPlan(
        micro_batch,
        memory,
        f"a step of the gradient takes {needed}, and {device} has {format_bytes(capacity)}. "
        "Set start: references, or use a larger GPU",
    )


def _capacity(device: str) -> int | None:
    """Bytes of an accelerator; None of a CPU, and of what is not there."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return None
    number = torch.device(device).index or 0
    return torch.cuda.get_device_properties(number).total_memory if number < torch.cuda.device_count() else None


def planned_micro_batch(backend: BackendConfig, plan: MergePlan, device: str) -> MicroBatch:
    """What the backend will run at once.

    Args:
        backend: as in the search file.
        plan: of a candidate.
        device: what `device: auto` comes to, such as cpu or cuda:1.
    """
    return plan_micro_batch(
        text_config(plan.config),
        _width(backend, plan, device),
        sum(math.prod(job.shape) for job in plan.jobs),
        backend.max_batch_tokens or default_batch_tokens(device),
    )


def plan_gradient_memory(
    backend: BackendConfig, plan: MergePlan, device: str, micro_batch: MicroBatch
) -> GradientMemory:
    """Add up what a step holds at its peak.

    Args:
        backend: as in the search file.
        plan: of a candidate.
        device: what `device: auto` comes to, such as cpu or cuda:1.
        micro_batch: what is run at once.
    """
    width, config = _width(backend, plan, device), text_config(plan.config)
    largest = max((math.prod(job.shape) * len(job.inputs) for job in plan.jobs), default=0)
    tied = stated_size(config, "vocab_size") * stated_size(config, "hidden_size") if plan.tied else 0
    return GradientMemory(
        live_model=width * sum(math.prod(job.shape) for job in plan.jobs),
        gradient=width * (_largest_weight(plan) + tied),
        sources=0 if device.startswith("cpu") else width * largest,
        merges=max((_bytes_of_a_merge(job) for job in plan.jobs), default=0),
        activations=micro_batch.activation_bytes(config, width),
        loss=micro_batch.loss_bytes(config, width),
    )


def _width(backend: BackendConfig, plan: MergePlan, device: str) -> int:
    return 4 if backend.options(plan.config, device).dtype == "float32" else 2


def _bytes_of_a_merge(job: TensorJob) -> int:
    method = METHODS[job.method]
    if method.differences is not None or {*method.differentiable} <= {*method.by_formula}:
        return 0
    return 4 * math.prod(job.shape[1:] if job.experts else job.shape)


def _largest_weight(plan: MergePlan) -> int:
    """Elements of the largest parameter of the live model, where the experts of a layer are one."""
    sizes: Counter[str] = Counter()
    for job in plan.jobs:
        before, experts, _ = job.output.partition(".experts.")
        sizes[before + experts if experts else job.output] += math.prod(job.shape)
    return max(sizes.values(), default=0)
