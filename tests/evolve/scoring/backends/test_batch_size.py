"""Batches on a device that is a number of bytes."""

from __future__ import annotations

import pytest
import torch

from evolve.scoring.backends.batch_size import FEWEST, BatchSize

PER_TOKEN = 10


class Card:
    """Holds so many bytes; work takes ten a token, and notes its batches."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.peak = capacity, 0
        self.batches: list[int] = []

    def begin(self) -> None:
        self.peak = 0

    def used(self) -> int:
        return self.peak

    def room(self) -> int:
        return self.capacity

    def run(self, size: BatchSize, wanted: int) -> int:
        def work(tokens: int) -> int:
            left = wanted
            while left > 0:
                batch = min(tokens, left)
                if batch * PER_TOKEN > self.capacity:
                    raise torch.OutOfMemoryError
                size.saw(batch)
                self.peak = max(self.peak, batch * PER_TOKEN)
                self.batches.append(batch)
                left -= batch
            return wanted

        return size.within_memory(work)


def test_batches_grow_to_half_of_what_fits_and_no_further() -> None:
    card = Card(1_000_000)
    size = BatchSize(4096, card)
    for _ in range(10):
        assert card.run(size, 200_000) == 200_000
    assert max(card.batches) == size.tokens
    assert size.tokens * PER_TOKEN <= card.capacity / 2 < 2 * size.tokens * PER_TOKEN


def test_what_fills_no_batch_says_nothing_about_a_larger_one() -> None:
    card = Card(10**9)
    size = BatchSize(4096, card)
    for wanted in (10, 500, 2048):
        card.run(size, wanted)
    assert size.tokens == 4096
    card.run(size, 2049)
    assert size.tokens == 8192


def test_where_memory_ends_batches_are_halved_for_good() -> None:
    card = Card(100_000)
    size = BatchSize(32768, card)
    assert card.run(size, 50_000) == 50_000
    assert size.tokens == 8192
    card.capacity = 10**9  # whatever was beside it has gone: what once was too much is not tried again
    for _ in range(5):
        card.run(size, 50_000)
    assert size.tokens == 8192


def test_batches_of_a_size_that_was_given_do_not_grow_and_the_smallest_raises() -> None:
    card = Card(10**9)
    size = BatchSize(512)
    card.run(size, 10_000)
    assert size.tokens == 512
    with pytest.raises(torch.OutOfMemoryError):
        Card(10).run(size, 10_000)
    assert size.tokens == FEWEST
