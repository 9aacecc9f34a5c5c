"""Whether the routers of several models send tokens to the same experts, which averaging of experts relies on.

A router is asked about random normalised activations, scaled as each model's own norm before the experts scales them:
it is linear, and what it chooses of such is known without running a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from merge_core import Checkpoint
from merge_core.checkpoint.layout import Layout, checkpoint_layout

TOKENS = 512
"""Random activations that every router is asked about: a share is known within 0.02 by each layer."""

_ROUTER = re.compile(r"((^|.*\.)(gate|router)(\.\w+)?)\.weight")
_NORMS = ("post_attention_layernorm.weight", "pre_feedforward_layernorm.weight", "ffn_norm.weight")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts", "moe_topk")


@dataclass(frozen=True)
class _Router:
    """Names of what decides in a layer.

    Attributes:
        weight: experts x width.
        bias: added to its logits; None without one.
        correction: added to the sigmoids of its logits where experts are chosen by these.
        norm: what scales its input.
    """

    weight: str
    bias: str | None
    correction: str | None
    norm: str | None


def routing_agreement(models: Sequence[Checkpoint], reference: int, seed: int = 0) -> list[list[float]]:
    """The share of the reference's experts that a model's routers choose as well.

    Args:
        models: of one family.
        reference: number of the model that the others are compared with.
        seed: of the activations.

    Returns:
        For each model, for each layer with a router, from 0 to 1; empty lists of models without experts.
    """
    routers = [_routers(checkpoint_layout(model), model) for model in models]
    count = _chosen(models[reference].config)
    shared = sorted(set.intersection(*(set(found) for found in routers)))
    agreements: list[list[float]] = [[] for _ in models]
    for layer in shared:
        width = models[reference].tensors[routers[reference][layer].weight].shape[1]
        generator = torch.Generator().manual_seed(seed * 100_003 + layer)
        tokens = torch.randn(TOKENS, width, generator=generator)
        chosen = [_choose(model, own[layer], tokens, count) for model, own in zip(models, routers, strict=True)]
        for own, found in zip(agreements, chosen, strict=True):
            own.append(float((found & chosen[reference]).sum() / chosen[reference].sum()))
    return agreements


def _choose(model: Checkpoint, router: _Router, tokens: Tensor, count: int) -> Tensor:
    """Which experts each token goes to: bool, tokens x experts."""
    if router.norm is not None:
        tokens = tokens * model.read(router.norm).to(torch.float32)
    scores = tokens @ model.read(router.weight).to(torch.float32).T
    if router.bias is not None:
        scores = scores + model.read(router.bias).to(torch.float32)
    if router.correction is not None:
        scores = torch.sigmoid(scores) + model.read(router.correction).to(torch.float32)
    best = scores.topk(min(count, scores.shape[1]), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


def _routers(layout: Layout, model: Checkpoint) -> dict[int, _Router]:
    found = {}
    for number, layer in enumerate(layout.layers):
        if not any("experts." in inner for inner in layer):
            continue
        for inner, name in layer.items():
            match = _ROUTER.fullmatch(inner)
            if match is None or len(model.tensors[name].shape) != 2 or model.tensors[name].shape[0] == 1:
                continue  # one row is the gate of a shared expert
            norm = next((layer[norm] for norm in _NORMS if norm in layer), None)
            stem = match.group(1)
            found[number] = _Router(name, layer.get(f"{stem}.bias"), layer.get(f"{stem}.e_score_correction_bias"), norm)
    return found


def _chosen(config: Mapping[str, Any]) -> int:
    """How many experts a token goes to; 2 where the config does not say."""
    sections = [config, *(section for section in config.values() if isinstance(section, dict))]
    stated = (section.get(key) for section in sections for key in _CHOSEN)
    return next((value for value in stated if isinstance(value, int) and value > 0), 2)
