"""Live models of one kind, built as often as their depth changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from evolve.scoring.backends.quantized_linear import Bits, quantize_linears
from evolve.scoring.backends.uninitialised_model import build_uninitialised_model, spread_over_devices

Arrange = Callable[[torch.nn.Module], None]
"""Gives a model that was just built its parameters."""


@dataclass(frozen=True)
class ModelBuilder:
    """Builds models with undefined weights.

    Attributes:
        dtype: Of the parameters; None is the configuration's own.
        device: Where they live.
        attention: `sdpa`, `eager`, `flash_attention_2`; None is transformers' choice.
        device_map: Spreads a model over several devices, as in transformers.
        model_args: Passed on to `AutoModelForCausalLM.from_config`.
        quantization: What the linear layers are held in (`quantized_linear`).
    """

    dtype: str | torch.dtype | None
    device: torch.device
    attention: str | None = None
    device_map: str | Mapping[str, Any] | None = None
    model_args: Mapping[str, Any] | None = None
    quantization: Bits | None = None

    def build(self, config: Mapping[str, Any], arrange: Arrange | None = None) -> Any:
        """A model of the content of a config.json.

        Args:
            config: The content.
            arrange: Gives it its parameters, where some are there already or are to be one tensor; those of a
                quantised one are its own.

        Raises:
            TaskError: The architecture is not known to transformers, or an argument is not.
        """
        if self.quantization is not None:
            return self._quantized(config, self.quantization)
        # What is arranged first lies in the CPU's memory, which is taken when it is written.
        arranges = arrange is not None and self.device_map is None
        device = torch.device("cpu") if arranges else self.device
        model = build_uninitialised_model(config, self.dtype, device, self.attention, self.model_args)
        if self.device_map is not None:
            return spread_over_devices(model, self.device_map)
        if arrange is not None:
            arrange(model)
        return model

    def _quantized(self, config: Mapping[str, Any], bits: Bits) -> Any:
        """A model of which no linear layer but the head is ever whole."""
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            model = build_uninitialised_model(config, self.dtype, self.device, self.attention, self.model_args)
        quantize_linears(model, bits, self.device)
        return model
