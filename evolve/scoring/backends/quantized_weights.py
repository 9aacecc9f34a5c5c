"""Weights rounded to eight or four bits and back, for scoring a model as it will be served.

Only the linear layers' weights are rounded, as the libraries do by default; not the head, nor embeddings and norms.
Activations and arithmetic stay in the model's precision, so no speed or memory is gained, and no library is needed.

- 8bit: each row by its largest absolute value to integers in [-127, 127] (Dettmers et al. 2022, arXiv:2208.07339,
  section 2; without its separate treatment of outlying activations).
- 4bit: each block of 64 successive weights by its largest absolute value to the 16 values of NormalFloat4 (Dettmers
  et al. 2023, arXiv:2305.14314, section 3 and appendix E; the scales are not quantised a second time).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Bits = Literal["8bit", "4bit"]

_BLOCK = 64
_NORMAL_FLOAT_4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def round_to_8_bits(weight: Tensor) -> Tensor:
    """Round each row to 255 evenly spaced values.

    Args:
        weight: Shape (rows, columns).

    Returns:
        What the integers stand for, in float32.
    """
    values = weight.float()
    scale = values.abs().amax(dim=1, keepdim=True) / 127
    return torch.where(scale > 0, (values / scale).round() * scale, values)


def round_to_4_bits(weight: Tensor) -> Tensor:
    """Round each block of 64 weights, in the order of memory, to the values of NormalFloat4.

    Args:
        weight: Any shape.

    Returns:
        What the four bits stand for, in float32.
    """
    values = weight.float().flatten()
    blocks = nn.functional.pad(values, (0, -len(values) % _BLOCK)).view(-1, _BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(_NORMAL_FLOAT_4, device=weight.device)
    nearest = torch.bucketize(blocks / scale.clamp(min=torch.finfo(torch.float32).tiny), (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest] * scale).flatten()[: len(values)].view(weight.shape)


ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {"8bit": round_to_8_bits, "4bit": round_to_4_bits}


@torch.no_grad()
def copy_quantized(source: Any, target: Any, bits: Bits) -> None:
    """Copy a model's weights into another of the same shape, rounding those of the linear layers.

    Args:
        source: A transformers model.
        target: Another, whose memory is its own.
        bits: `8bit` or `4bit`.
    """
    head = source.get_output_embeddings()
    linear = {
        f"{name}.weight"
        for name, module in source.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    targets = target.state_dict()
    for name, tensor in source.state_dict().items():
        targets[name].copy_(ROUNDING[bits](tensor) if name in linear else tensor)
