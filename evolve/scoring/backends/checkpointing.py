"""Layers of a live model that keep their inputs alone, and are computed anew in the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer


@contextlib.contextmanager
def checkpointed(model: Any) -> Iterator[None]:
    """Checkpointing (Chen et al. 2016, arXiv:1604.06174) for a while, where the model's layers are made for it.

    Args:
        model: of transformers, in evaluation mode.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not model.supports_gradient_checkpointing or not layers:
        yield
        return
    # "activation" since transformers 5.20; the older name warns there.
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{word}_checkpointing_enable")({"use_reentrant": False})
    for layer in layers:
        layer.training = True  # the layer alone and not what is in it, so that nothing is dropped out
    try:
        yield
    finally:
        getattr(model, f"{word}_checkpointing_disable")()
        for layer in layers:
            layer.training = False
