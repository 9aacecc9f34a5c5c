"""Which stored tensors are the parts of quantized ones: told by their names, as published models have them."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from merge_core.checkpoint.quantized.bitsandbytes_4bit import read_four_bits
from merge_core.checkpoint.quantized.gptq import read_words
from merge_core.checkpoint.quantized.mxfp4 import read_mxfp4
from merge_core.checkpoint.quantized.packed import read_packed
from merge_core.checkpoint.quantized.scaled import read_scaled
from merge_core.checkpoint.quantized.stored import QuantizedTensor, Stored
from merge_core.errors import MergeError, and_more

_READERS: tuple[tuple[str, str, Callable[[str, Stored], QuantizedTensor | None]], ...] = (
    (".qweight", ".weight", read_words),
    (".weight_packed", ".weight", read_packed),
    ("_blocks", "", read_mxfp4),
    (".weight", ".weight", read_four_bits),
    ("", "", read_scaled),
)
"""Ending of the tensor that has the codes, that of the tensor which they stand for, and what reads it."""

_SCALES = (".weight_scale", ".weight_scale_inv", ".scales")
_REST = frozenset(("weight_shape", "weight_g_idx", "weight_zero_point", "weight_format", "g_idx"))
# What only those read who compute with the codes: scales of activations and of the cache.
_FOR_ACTIVATIONS = re.compile(r"(^|[._])(input|output|activation|attn|prob|[qkv])(_global)?_(scale|zero_point)$")


def find_quantized(stored: Stored) -> tuple[dict[str, QuantizedTensor], frozenset[str]]:
    """Find the tensors of a checkpoint that are stored quantized.

    Args:
        stored: what it has on disk.

    Returns:
        Tensor name → how it is read; and the stored tensors that are none of the model's: parts of quantized ones,
        and scales of activations.

    Raises:
        MergeError: parts that are missing or do not fit, or codes that nothing here can read.
    """
    found: dict[str, QuantizedTensor] = {}
    for name in stored.headers:
        for ending, whole, reader in _READERS:
            if name.endswith(ending):
                stem = name.removesuffix(ending)
                made = reader(stem, stored)
                if made is not None:
                    found[stem + whole] = made
                    break
    if not found and not stored.settings.method and not any(name.endswith(_SCALES) for name in stored.headers):
        return {}, frozenset()
    modules = {name.removesuffix(".weight") for name in found}
    parts = {part for made in found.values() for part in made.parts}
    parts |= {name for name in stored.headers if _says_how(name, modules)}
    _refuse_unread(stored, parts)
    return found, frozenset(parts)


def _says_how(name: str, modules: set[str]) -> bool:
    """Whether a stored tensor only says how another is quantized, or is to be computed with."""
    module, _, last = name.rpartition(".")
    return (module in modules and last in _REST) or _FOR_ACTIVATIONS.search(name) is not None


def _refuse_unread(stored: Stored, understood: set[str]) -> None:
    unread = [
        name
        for name, header in stored.headers.items()
        if name not in understood and len(header.shape) > 1 and _are_codes(header.dtype)
    ]
    if unread:
        raise MergeError(
            f"its weights are quantized ({stored.settings.method or 'its config does not say how'}) in a way that is "
            f"not read here: {and_more(unread)}. Name the unquantized model, or load this one with transformers, call "
            "model.dequantize() and save it"
        )


def _are_codes(dtype: torch.dtype) -> bool:
    """Positions of tokens and the like are int64, flags bool."""
    return dtype in (torch.int8, torch.uint8, torch.int32) or (dtype.is_floating_point and dtype.itemsize == 1)
