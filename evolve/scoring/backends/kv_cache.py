"""A key-value cache for short answers in large batches."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A full-attention cache layer with room for the whole answer.

    The standard layer copies the whole cache for every token written, which for a small model costs as much
    as its forward. This one writes into a buffer and returns views of it.

    Args:
        capacity: Tokens to make room for: prompt and answer.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.is_initialized: bool = False
        self.keys: Any = None
        self.values: Any = None
        self._capacity = capacity
        self._length = 0
        self._place: torch.Tensor | None = None
        self._key_buffer = self._value_buffer = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, shape (batch, heads, tokens, head size); return all so far, or see `fix`."""
        if self._place is not None:
            self._key_buffer.index_copy_(2, self._place, key_states)
            self._value_buffer.index_copy_(2, self._place, value_states)
            return self._key_buffer, self._value_buffer
        start, end = self._length, self._length + key_states.shape[-2]
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            self._key_buffer = self._room_for(key_states)
            self._value_buffer = self._room_for(value_states)
            self.is_initialized = True
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self._length = end
        self._set_views()
        return self.keys, self.values

    def fix(self, place: torch.Tensor) -> None:
        """From now on write one token at a time, and return all of the room: the same memory for every token.

        Args:
            place: Where the next token is written, int64 (1,) on the cache's device; whoever gave it moves it on.
        """
        if self._place is None:  # what was never written is masked, and must be a number all the same
            self._key_buffer[:, :, self._length :] = 0
            self._value_buffer[:, :, self._length :] = 0
        self._place = place

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows of the batch."""
        if self.is_initialized:
            self._key_buffer = self._key_buffer[indices]
            self._value_buffer = self._value_buffer[indices]
            self._set_views()

    def _room_for(self, states: torch.Tensor) -> torch.Tensor:
        batch, heads, _, size = states.shape
        return states.new_empty(batch, heads, self._capacity, size)

    def _set_views(self) -> None:
        self.keys = self._key_buffer[:, :, : self._length]
        self.values = self._value_buffer[:, :, : self._length]


class CacheFactory:
    """Makes empty caches for one model; reading its configuration, the slow part, is done once.

    Args:
        config: The model's configuration.

    Attributes:
        is_plain: Whether keys and values of attention are all that a cache of the model holds, so that it can be
            copied row by row. Only then are caches made.
        is_whole: Whether besides every layer keeps every token.
    """

    def __init__(self, config: Any) -> None:
        self._empty = DynamicCache(config=config)
        kinds = {type(layer) for layer in self._empty.layers}
        self.is_plain = bool(kinds) and kinds <= {DynamicLayer, DynamicSlidingWindowLayer}
        self.is_whole = kinds == {DynamicLayer}

    def make(self, capacity: int) -> Any:
        """An empty cache.

        Args:
            capacity: Tokens to make room for in each row.
        """
        cache = copy.copy(self._empty)
        # Layers hold nothing before their first token, so a shallow copy of an unused one is a new one.
        cache.layers = [
            PreallocatedLayer(capacity) if type(layer) is DynamicLayer else copy.copy(layer)
            for layer in self._empty.layers
        ]
        return cache
