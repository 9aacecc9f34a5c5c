"""What a backward pass keeps of its forward pass, and the micro-batches that keep it within bounds.

From a configuration and a number of parameters alone: the backend and the preflight ask here, so that what is foretold
is what is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evolve.scoring.backends.continuation_scoring import LOGITS_AT_ONCE

ACTIVATION_BYTES = 1 << 30
"""What the activations of one micro-batch may take."""

CHECKPOINT_FROM = 500_000_000
"""Parameters from which activations are computed a second time instead of kept: a third more time, a layer's memory."""

FEWEST_TOKENS = 256
"""Of a micro-batch, whatever its activations take."""

SINGLE = 4
"""Bytes of float32, in which norms, softmax and loss compute whatever the model's precision is."""


@dataclass(frozen=True)
class MicroBatch:
    """What is run at once; more only where a single item is longer.

    Attributes:
        tokens: padding included.
        scored_tokens: positions of it whose logits are computed, at most.
        checkpointing: whether layers keep their inputs alone and are computed again in the backward pass.
    """

    tokens: int
    scored_tokens: int
    checkpointing: bool

    def activation_bytes(self, config: Mapping[str, Any], width: int) -> int:
        """What the layers keep of all tokens.

        Args:
            config: of the language model.
            width: bytes of a value.
        """
        return self.tokens * _kept_bytes_per_token(config, width, self.checkpointing)

    def loss_bytes(self, config: Mapping[str, Any], width: int) -> int:
        """Logits, their softmax, and the gradients of both."""
        return self.scored_tokens * stated_size(config, "vocab_size") * (2 * width + 3 * SINGLE)


def plan_micro_batch(config: Mapping[str, Any], width: int, parameters: int, max_batch_tokens: int) -> MicroBatch:
    """How much is run at once, and how.

    Args:
        config: of the language model, with the names of a config.json.
        width: bytes of a value.
        parameters: of the model.
        max_batch_tokens: rows times padded length of any batch.
    """
    checkpointing = parameters >= CHECKPOINT_FROM
    each = _kept_bytes_per_token(config, width, checkpointing)
    fitting = ACTIVATION_BYTES // each if each else FEWEST_TOKENS  # of sizes that are not told the fewest is sure
    tokens = max(FEWEST_TOKENS, min(max_batch_tokens, fitting))
    vocabulary = stated_size(config, "vocab_size") or 1
    return MicroBatch(tokens, min(tokens, max(LOGITS_AT_ONCE // vocabulary, 1)), checkpointing)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that describes the language model."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config


def stated_size(config: Mapping[str, Any], key: str) -> int:
    """A size that a config states, the largest where it states one for every layer; 0 where it states none."""
    value = config.get(key)
    return max((size for size in (value if isinstance(value, list) else [value]) if isinstance(size, int)), default=0)


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
    hidden, heads = stated_size(config, "hidden_size"), stated_size(config, "num_attention_heads")
    size = stated_size(config, "head_dim") or (hidden // heads if heads else 0)
    queries, keys = heads * size, (stated_size(config, "num_key_value_heads") or heads) * size
    experts = stated_size(config, "num_experts_per_tok")
    inner = stated_size(config, "moe_intermediate_size") if experts else 0
    inner = inner or stated_size(config, "intermediate_size") or 4 * hidden
    norms = 2 * hidden * (SINGLE + 2 * width)
    mixture = width * (4 * inner * max(experts, 1) + 3 * hidden * experts)
    return int(norms + width * 2 * (queries + keys) + mixture)


def _kept_bytes_per_token(config: Mapping[str, Any], width: int, checkpointing: bool) -> int:
    """Of all layers; with checkpointing the input of each, and one whole layer with its gradients."""
    layers, layer = stated_size(config, "num_hidden_layers"), activation_bytes_per_token(config, width)
    return layers * width * stated_size(config, "hidden_size") + 2 * layer if checkpointing else layers * layer
