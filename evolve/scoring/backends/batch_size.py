"""How many tokens a batch has on a device whose memory ends: halved where it does, doubled where there is room."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

_LOG = logging.getLogger(__name__)
Result = TypeVar("Result")

FEWEST = 256
"""Below this, less in a batch does not help: one row alone is too much."""

MOST = 2**20
"""More than this makes nothing faster."""

ROOM_USED = 0.5
"""Of the room on a device, by a batch of twice the size: what runs beside it has changing needs."""


class Memory(Protocol):
    """The memory of a device, as far as a batch uses it."""

    def begin(self) -> None:
        """From now on the highest use counts."""

    def used(self) -> int:
        """Bytes of the highest use since, beside what was in use then."""

    def room(self) -> int:
        """Bytes that could be used, beside what was in use then."""


class BatchSize:
    """Finds what fits.

    Args:
        tokens: Rows times padded length of the largest batch, at first.
        memory: Of the device; None where batches do not grow: on a CPU, or where the user has said how large they are.

    Attributes:
        tokens: As it is now.
    """

    def __init__(self, tokens: int, memory: Memory | None = None) -> None:
        self.tokens = tokens
        self._memory = memory
        self._most = MOST
        self._largest = 0

    def saw(self, tokens: int) -> None:
        """A batch of this size ran."""
        self._largest = max(self._largest, tokens)

    def within_memory(self, work: Callable[[int], Result]) -> Result:
        """Do some work, with half the tokens in a batch whenever the device's memory ends, from then on.

        Args:
            work: Is told how many tokens a batch may have.

        Raises:
            torch.OutOfMemoryError: The smallest batch does not fit.
        """
        while True:
            self._largest = 0
            if self._memory is not None:
                self._memory.begin()
            try:
                result = work(self.tokens)
            except torch.OutOfMemoryError:
                if self.tokens <= FEWEST:
                    raise
            else:
                self._grow()
                return result
            # Outside the handler, whose exception still holds the tensors that did not fit.
            self.tokens //= 2
            self._most = self.tokens
            _LOG.warning("out of memory: batches have at most %d tokens from now on", self.tokens)
            torch.cuda.empty_cache()

    def _grow(self) -> None:
        """By one doubling, if a batch was full and twice of what it took leaves room."""
        memory, full = self._memory, 2 * self._largest > self.tokens
        if memory is None or not full or 2 * self.tokens > self._most:
            return
        needed = memory.used() * 2 * self.tokens / self._largest
        if needed <= ROOM_USED * memory.room():
            self.tokens *= 2


class CardMemory:
    """The `Memory` of a GPU.

    Args:
        device: The card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def begin(self) -> None:
        """As of a `Memory`."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def used(self) -> int:
        """As of a `Memory`."""
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def room(self) -> int:
        """As of a `Memory`: free, or held by torch and not in use."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(free) + torch.cuda.memory_reserved(self._device) - self._before
