"""NF4 and FP4 of bitsandbytes: codes of a table, scaled by the largest magnitude of each block of entries.

Those magnitudes may be codes themselves, "double quantization" (https://arxiv.org/abs/2305.14314, section 3).
"""

from __future__ import annotations

import json
import math

import torch
from torch import Tensor

from merge_core.checkpoint.quantized.number_formats import unpack_nibbles
from merge_core.checkpoint.quantized.stored import QuantizedTensor, Stored, check_shape
from merge_core.errors import MergeError


def read_four_bits(module: str, stored: Stored) -> QuantizedTensor | None:
    """How the weight of a module is read; None where it has no table of levels.

    Its shape is in JSON that is stored as bytes of a tensor, which is read for it.
    """
    weight = f"{module}.weight"
    if not stored.has(f"{weight}.quant_map"):
        return None
    states = stored.has(*(f"{weight}.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4")))
    if not states:
        raise MergeError(f"no tensor {weight}.quant_state, without which it cannot be read. Fetch the model again")
    state = json.loads(bytes(stored.read(states[0]).tolist()))
    shape = tuple(int(size) for size in state["shape"])
    size, offset = int(state["blocksize"]), float(state.get("nested_offset") or 0.0)
    outer_size = int(state.get("nested_blocksize") or 1)
    header = stored.headers[weight]
    check_shape(weight, (header.count * header.dtype.itemsize * 2,), (math.prod(shape),))
    nested = stored.has(f"{weight}.nested_absmax", f"{weight}.nested_quant_map")

    def values(codes: Tensor, largest: Tensor, levels: Tensor, _: Tensor, *outer: Tensor) -> Tensor:
        if outer:
            scales = outer[0].repeat_interleave(outer_size)[: largest.numel()]
            largest = outer[1][largest.to(torch.int64)] * scales + offset
        # The high half of a byte comes first.
        halves = unpack_nibbles(codes.contiguous().view(torch.uint8).flatten()).view(-1, 2).flip(-1)
        numbers = levels[halves.flatten()]
        scales = largest.to(torch.float32).repeat_interleave(size)[: numbers.numel()]
        return (numbers * scales).view(shape)

    return QuantizedTensor(shape, (weight, f"{weight}.absmax", f"{weight}.quant_map", states[0], *nested), values)
