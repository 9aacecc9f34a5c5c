"""Work on the elements of a tensor, shared among threads."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

from merge_core.kernels.constants import BLOCK

Result = TypeVar("Result")
Span = np.ndarray[Any, np.dtype[np.int64]]
"""Start and end of a range of elements: int64 (2,)."""


def in_spans(function: Callable[[Span], Result], count: int, length: int) -> list[Result]:
    """Apply a function to parts of ``range(count)`` on as many threads as torch uses; results in order."""
    length = -(-length // BLOCK) * BLOCK if length >= BLOCK else length
    spans = list(_spans(count, length))
    threads = torch.get_num_threads()
    if threads == 1 or len(spans) == 1:
        return [function(span) for span in spans]
    # Every thread takes every n-th span by itself: n waits for the whole, instead of one for each part.
    results: list[Any] = [None] * len(spans)
    numbers = itertools.count()

    def work() -> None:
        while (number := next(numbers)) < len(spans):
            results[number] = function(spans[number])

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()
    return results


def _spans(count: int, length: int) -> Iterator[Span]:
    for start in range(0, count, length):
        yield np.array([start, min(start + length, count)], dtype=np.int64)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="merge")
