"""Linear layers that hold their weights in eight or four bits, so that a live model takes half or a quarter.

All of a transformer's linear layers but the head, as the libraries do by default; not embeddings, norms, and what is
no linear layer, as the experts of a layer in one tensor. A weight is rounded when a candidate is written, and is back
in the precision of the forward only while its layer computes.

- 8bit: each row by its largest absolute value to integers in [-127, 127] (Dettmers et al. 2022, arXiv:2208.07339,
  section 2; without its separate treatment of outlying activations).
- fp8: each row by its largest absolute value to the floats of eight bits, e4m3 (Micikevicius et al. 2022,
  arXiv:2209.05433).
- 4bit: each block of 64 successive weights by its largest absolute value to the 16 values of NormalFloat4 (Dettmers
  et al. 2023, arXiv:2305.14314, section 3 and appendix E; the scales are not quantised a second time), by bitsandbytes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evolve.scoring.backends.uninitialised_model import build_uninitialised_model

Bits = Literal["8bit", "fp8", "4bit"]

_BLOCK = 64
_SCALE_BYTES = 4
_AT_ONCE = 2**20  # weights that are rounded at a time, in float32
_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: torch.finfo(torch.float8_e4m3fn).max}


class QuantizedLinear(nn.Module, ABC):
    """A linear layer whose weight is held in fewer bits.

    Args:
        linear: Whose place it takes; its weight is on the meta device, as a bias may be.
        device: Where the weight is to be.

    Attributes:
        weight: What a merge makes: a shape and a dtype, on the meta device.
        codes: The weight as it is held; undefined until one is packed.
        bias: As in the linear layer.
    """

    codes: Tensor

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    @abstractmethod
    def pack(self, weight: Tensor) -> None:
        """Hold another weight, shape (outputs, inputs), on the device of the codes."""

    @abstractmethod
    def unpacked(self) -> Tensor:
        """What the bits stand for, in the dtype of `weight`."""

    def forward(self, states: Tensor) -> Tensor:
        """As a linear layer's."""
        return nn.functional.linear(states, self.unpacked(), self.bias)


class ScaledRows(QuantizedLinear):
    """Each row a number in float32 times codes of eight bits.

    Args:
        linear: Whose place it takes.
        device: Where the weight is to be.
        kind: Of the codes: int8 or float8_e4m3fn.
    """

    scales: Tensor

    def __init__(self, linear: nn.Linear, device: torch.device, kind: torch.dtype) -> None:
        super().__init__(linear, device)
        # Not persistent: the weight is what a checkpoint has.
        self.register_buffer("codes", torch.empty(linear.weight.shape, dtype=kind, device=device), persistent=False)
        self.register_buffer("scales", torch.empty(linear.out_features, 1, device=device), persistent=False)

    @torch.no_grad()
    def pack(self, weight: Tensor) -> None:
        """Hold another weight, shape (outputs, inputs)."""
        rows = max(_AT_ONCE // weight.shape[1], 1)
        parts = [torch.split(one, rows) for one in (weight, self.codes, self.scales)]
        for part, codes, scales in zip(*parts, strict=True):
            values = part.float()
            torch.div(values.abs().amax(dim=1, keepdim=True), _LARGEST[codes.dtype], out=scales)
            scaled = values / scales.clamp(min=torch.finfo(torch.float32).tiny)
            codes.copy_(scaled if codes.is_floating_point() else scaled.round_())

    def unpacked(self) -> Tensor:
        """What the bits stand for, in the dtype of `weight`."""
        return self.codes.to(self.weight.dtype).mul_(self.scales)  # the codes exactly: no float has fewer bits


class NormalFloat4(QuantizedLinear):
    """Each block of 64 weights a number in float32 times 16 values, two in a byte, as bitsandbytes keeps them."""

    scales: Tensor

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        super().__init__(linear, device)
        from bitsandbytes.functional import QuantState, get_4bit_type

        count = linear.weight.numel()
        codes = torch.empty(math.ceil(count / 2), 1, dtype=torch.uint8, device=device)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", torch.empty(math.ceil(count / _BLOCK), device=device), persistent=False)
        self._state = QuantState(
            absmax=self.scales,
            shape=linear.weight.shape,
            code=get_4bit_type("nf4", device=device),
            blocksize=_BLOCK,
            quant_type="nf4",
            dtype=linear.weight.dtype,
        )

    @torch.no_grad()
    def pack(self, weight: Tensor) -> None:
        """Hold another weight, shape (outputs, inputs)."""
        from bitsandbytes.functional import quantize_4bit

        flat = weight.to(self.weight.dtype).flatten()
        sizes = (_AT_ONCE, _AT_ONCE // 2, _AT_ONCE // _BLOCK)
        parts = [torch.split(one, size) for one, size in zip((flat, self.codes, self.scales), sizes, strict=True)]
        for part, codes, scales in zip(*parts, strict=True):
            quantize_4bit(part, absmax=scales, out=codes, blocksize=_BLOCK, quant_type="nf4")

    def unpacked(self) -> Tensor:
        """What the bits stand for, in the dtype of `weight`."""
        from bitsandbytes.functional import dequantize_4bit

        weight: Tensor = dequantize_4bit(self.codes, self._state)
        return weight

    def forward(self, states: Tensor) -> Tensor:
        """As a linear layer's; on a GPU one row is multiplied without the weight ever being whole."""
        from bitsandbytes.autograd._functions import matmul_4bit

        found: Tensor = matmul_4bit(states, self.codes.t(), quant_state=self._state, bias=self.bias)
        return found


def quantize_linears(model: Any, bits: Bits, device: torch.device) -> None:
    """Replace the linear layers of a model without memory, and give all its other parameters some.

    Args:
        model: Of transformers, with its parameters on the meta device.
        bits: What they are held in.
        device: Where everything is to be.
    """
    for name in _linears(model):
        linear = model.get_submodule(name)
        held = NormalFloat4(linear, device) if bits == "4bit" else ScaledRows(linear, device, _KINDS[bits])
        model.set_submodule(name, held)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta and not (isinstance(module, QuantizedLinear) and name == "weight"):
                memory = torch.empty_like(parameter, device=device)
                setattr(module, name, nn.Parameter(memory, requires_grad=False))
    model.tie_weights()


def is_quantized(model: nn.Module) -> bool:
    """Whether linear layers of a model hold their weights in fewer bits."""
    return any(isinstance(module, QuantizedLinear) for module in model.modules())


def quantized_bytes(config: Mapping[str, Any], bits: Bits, width: int) -> tuple[int, int]:
    """What a live model takes with its linear layers held so.

    Args:
        config: The content of its config.json.
        bits: Of the linear layers.
        width: Bytes of every other number.

    Returns:
        Bytes of all weights, and of the largest one that is whole again while its layer computes.

    Raises:
        TaskError: The architecture is not known to transformers.
    """
    model = build_uninitialised_model(config, None, torch.device("meta"), None)
    shapes = [model.get_submodule(name).weight.shape for name in _linears(model)]
    plain = sum(parameter.numel() for parameter in model.parameters()) - sum(map(math.prod, shapes))
    held = sum(_held_bytes(shape, bits) for shape in shapes)
    return plain * width + held, width * max(map(math.prod, shapes), default=0)


_KINDS = {"8bit": torch.int8, "fp8": torch.float8_e4m3fn}


def _held_bytes(shape: torch.Size, bits: Bits) -> int:
    count = math.prod(shape)
    if bits == "4bit":
        return math.ceil(count / 2) + _SCALE_BYTES * math.ceil(count / _BLOCK)
    return count + _SCALE_BYTES * shape[0]


def _linears(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
