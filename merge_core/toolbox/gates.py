"""The routers of a mixture: a direction for every expert and layer, from texts, so that nothing need be trained.

An expert's direction is what stands for its positive prompts in the base model, minus what stands for its negative
ones, at length 1. Under ``hidden`` that is the mean of the states of their last tokens as they enter a layer; under
``cheap_embed`` the direction of the sum of all their tokens' embeddings, for all layers the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from merge_core.checkpoint.layout import checkpoint_layout
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError
from merge_core.toolbox.moe_file import Expert
from merge_core.vocabulary.special_tokens import special_tokens
from merge_core.vocabulary.vocabulary import checkpoint_vocabulary

HiddenStates = Callable[[Sequence[int]], Tensor]
"""Token ids → what enters each layer at the last token: [layers, hidden size]."""

ALIKE = 0.999
"""Cosine from which on two directions choose alike."""


def gate_directions(
    mode: str,
    experts: Sequence[Expert],
    base: Checkpoint,
    hidden_states: Callable[[], HiddenStates],
    seed: int,
) -> Tensor:
    """Directions of a layer's router for every layer.

    Args:
        mode: one of `GATE_MODES`.
        experts: whose prompts.
        base: the model that reads them.
        hidden_states: makes what runs the base, where ``mode`` needs it.
        seed: of ``random`` directions, normal ones.

    Returns:
        [layers, experts, hidden size], float32.

    Raises:
        MergeError: no tokenizer; an expert's prompts that cancel out.
    """
    layout = checkpoint_layout(base)
    if layout.embedding is None:
        raise MergeError(f"{base.directory}: no embedding among its tensors. Is it a language model?")
    if mode == "random":
        size = base.tensors[layout.embedding].shape[1]
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(layout.layer_count, len(experts), size, generator=generator)
    encode = _encoder(base)
    if mode == "hidden":
        run = hidden_states()

        def stands_for(prompts: Sequence[str]) -> Tensor:
            return torch.stack([run(encode(prompt)) for prompt in prompts]).mean(0)
    else:
        table = base.read_in_parts(layout.embedding)

        def stands_for(prompts: Sequence[str]) -> Tensor:
            ids = [token for prompt in prompts for token in encode(prompt)]
            total: Tensor = table[ids].to(torch.float32).sum(0)
            return total.div(total.norm()).expand(layout.layer_count, -1)

    found = torch.stack(
        [
            stands_for(e.positive_prompts) - (stands_for(e.negative_prompts) if e.negative_prompts else 0.0)
            for e in experts
        ],
        dim=1,
    )
    norms = found.norm(dim=-1, keepdim=True)
    if not norms.min() > 0:
        expert = int(norms.amin((0, 2)).argmin())
        raise MergeError(
            f"experts[{expert}]: positive and negative prompts are the same to the base. Change one of them"
        )
    return found.div(norms)


def alike(directions: Tensor) -> list[tuple[int, int]]:
    """Pairs of experts that the router of no layer tells apart."""
    unit = normalize(directions, dim=-1)
    least = (unit @ unit.transpose(1, 2)).amin(0)
    return [(int(a), int(b)) for a, b in (least > ALIKE).triu(1).nonzero()]


def _encoder(base: Checkpoint) -> Callable[[str], list[int]]:
    """A text's tokens, after the one that texts begin with where there is one."""
    tokenizer = checkpoint_vocabulary(base).tokenizer()
    begin = special_tokens(base.directory).get("bos_token", "")
    return lambda text: tokenizer.encode(begin + text, add_special_tokens=False).ids
