"""What one step of the gradient start needs in memory, from configs and headers alone.

A step holds the live model, what a micro-batch leaves behind for the backward pass, and one weight's gradient, which
is contracted with the sources of that weight and thrown away (`merge_core.LiveGradient`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evolve.config.schema import BackendConfig
from evolve.preflight.memory_plan import text_config
from merge_core import MergePlan
from merge_core.execute.device_sources import SHARE

SINGLE = 4
"""Bytes of float32, in which norms, softmax and loss compute whatever the model's precision is."""


@dataclass(frozen=True)
class GradientMemory:
    """Bytes of one step.

    Attributes:
        live_model: the weights that compute.
        gradient: of the largest weight; with a tied head also the head's, which waits for the embedding's.
        sources: the inputs of the largest tensor on their way; 0 on a CPU, which maps the files. On an accelerator half
            of what the live model leaves free is taken for sources that stay there, see `staying_sources`.
        activations: of the layers, for one micro-batch.
        loss: logits, their softmax and the gradients of both.
    """

    live_model: int
    gradient: int
    sources: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.live_model + self.gradient + self.sources + self.activations + self.loss

    def staying_sources(self, capacity: int) -> int:
        """What sources take of an accelerator with so many bytes, where there are enough of them."""
        return int(max(capacity - self.live_model, 0) * SHARE)

    def fits(self, capacity: int) -> bool:
        """Whether a step fits an accelerator with so many bytes, sources that stay there included."""
        return self.total + self.staying_sources(capacity) <= capacity


def plan_gradient_memory(
    backend: BackendConfig, plan: MergePlan, device: str, tokens: int, scored_tokens: int, checkpointing: bool
) -> GradientMemory:
    """Add up what a step holds at its peak.

    Args:
        backend: as in the search file.
        plan: of a candidate.
        device: what `device: auto` comes to, such as cpu or cuda:1.
        tokens: of a micro-batch, padding included.
        scored_tokens: positions of it whose logits are computed.
        checkpointing: whether a layer's activations are computed again in the backward pass.
    """
    width = 4 if backend.options(plan.config, device).dtype == "float32" else 2
    config = text_config(plan.config)
    layers = config.get("num_hidden_layers", 0)
    layer = activation_bytes_per_token(config, width)
    kept = width * config.get("hidden_size", 0)  # the input of a layer, from which it is computed again
    activations = tokens * (layers * kept + 2 * layer if checkpointing else layers * layer)
    vocabulary = config.get("vocab_size", 0)
    largest = max((math.prod(job.shape) * len(job.inputs) for job in plan.jobs), default=0)
    tied = vocabulary * config.get("hidden_size", 0) if plan.tied else 0
    return GradientMemory(
        live_model=width * sum(math.prod(job.shape) for job in plan.jobs),
        gradient=width * (_largest_weight(plan) + tied),
        sources=0 if device.startswith("cpu") else width * largest,
        activations=activations,
        loss=scored_tokens * vocabulary * (2 * width + 3 * SINGLE),
    )


def activation_bytes_per_token(config: Mapping[str, Any], width: int) -> int:
    """What one layer keeps of one token for its backward pass.

    After Korthikanti et al. 2022, arXiv:2205.05198, section 4, for layers as Llama's with attention that keeps no
    matrix of scores: for both norms the input in float32, the normed values and the output, which the projections
    share; queries, keys, values and what attention gives; in the MLP gate, up, the activated gate and their product, in
    as many experts as a token visits, each with copies of what goes in and comes out.

    Args:
        config: of the language model.
        width: bytes of a value.
    """
    hidden, heads = config.get("hidden_size", 0), config.get("num_attention_heads", 0)
    size = config.get("head_dim") or (hidden // heads if heads else 0)
    queries, keys = heads * size, (config.get("num_key_value_heads") or heads) * size
    experts = config.get("num_experts_per_tok") or 0
    inner = config.get("moe_intermediate_size") if experts else None
    inner = inner or config.get("intermediate_size") or 4 * hidden
    norms = 2 * hidden * (SINGLE + 2 * width)
    mixture = width * (4 * inner * max(experts, 1) + 3 * hidden * experts)
    return int(norms + width * 2 * (queries + keys) + mixture)


def _largest_weight(plan: MergePlan) -> int:
    """Elements of the largest parameter of the live model, where the experts of a layer are one."""
    sizes: Counter[str] = Counter()
    for job in plan.jobs:
        before, experts, _ = job.output.partition(".experts.")
        sizes[before + experts if experts else job.output] += math.prod(job.shape)
    return max(sizes.values(), default=0)
