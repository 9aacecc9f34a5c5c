"""The numbers of a ``config.json`` that say how large a model is: whoever reckons with them can rely on their kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_core.bounds import DIMENSION
from merge_core.errors import shown

SIZES = frozenset(
    {
        *("vocab_size", "hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "ffn_dim", "head_dim"),
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_attention_heads", "n_head", "n_heads"),
        *("num_key_value_heads", "num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"),
        *("max_position_embeddings", "n_positions", "n_ctx", "sliding_window"),
    }
)
"""Whole numbers from 0, or but for the vocabulary's a list of such for every layer; null where there is none."""


def check_numbers(config: Mapping[str, Any]) -> None:
    """Refuse sizes that are no sizes, in nested configs too.

    Raises:
        ValueError: the first that is none, with its key.
    """
    for key, value in config.items():
        if isinstance(value, dict) and key not in SIZES:
            check_numbers(value)
        elif key in SIZES and value is not None:
            for number in value if isinstance(value, list) and key != "vocab_size" else [value]:
                if number is not None and (type(number) is not int or not 0 <= number <= DIMENSION):
                    raise ValueError(f"{key}: expected a whole number from 0, got {shown(number)}")
