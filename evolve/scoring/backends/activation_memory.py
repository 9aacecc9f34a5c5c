"""What a backward pass keeps of its forward pass, and how it is kept within bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

ACTIVATION_BYTES = 1 << 30
"""What the activations of one micro-batch may take."""

CHECKPOINT_FROM = 500_000_000
"""Parameters from which activations are computed a second time instead of kept: a third more time, a layer's memory."""

FEWEST_TOKENS = 256
"""Of a micro-batch, whatever its activations take."""


def activation_bytes(config: Any, itemsize: int, checkpointed: bool) -> int:
    """Bytes that a token keeps until the backward pass.

    34 numbers of two bytes for each layer and hidden unit (Korthikanti et al. 2022, arXiv:2205.05198, equation 1,
    without the attention scores, which fused attention does not keep), or with checkpointing a layer's input alone,
    and the whole of one layer.

    Args:
        config: A transformers configuration.
        itemsize: Bytes of a number.
        checkpointed: Whether layers are computed anew.
    """
    text = getattr(config, "text_config", None) or config
    layers, hidden = int(text.num_hidden_layers), int(text.hidden_size)
    layer = 17 * hidden * itemsize
    return layers * hidden * itemsize + layer if checkpointed else layers * layer


def checkpoints_activations(model: Any) -> bool:
    """Whether a model is so large that its activations are computed anew."""
    return sum(int(parameter.numel()) for parameter in model.parameters()) >= CHECKPOINT_FROM


def gradient_tokens(model: Any, max_batch_tokens: int) -> int:
    """Tokens of a micro-batch whose activations fit into `ACTIVATION_BYTES`."""
    itemsize = next(model.parameters()).element_size()
    each = activation_bytes(model.config, itemsize, checkpoints_activations(model))
    return max(FEWEST_TOKENS, min(max_batch_tokens, ACTIVATION_BYTES // each))


@contextlib.contextmanager
def checkpointed(model: Any) -> Iterator[None]:
    """Layers keep their inputs alone and are computed anew in the backward pass."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not model.supports_gradient_checkpointing or not layers:
        yield
        return
    prefix = (
        "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    )  # since transformers 5.20
    getattr(model, f"{prefix}_checkpointing_enable")({"use_reentrant": False})
    for layer in layers:
        layer.training = True  # the layer alone and not what is in it, so that nothing is dropped out
    try:
        yield
    finally:
        getattr(model, f"{prefix}_checkpointing_disable")()
        for layer in layers:
            layer.training = False
