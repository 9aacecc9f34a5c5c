"""Work done in the background, a bounded number of items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def background_map(function: Callable[[Item], Result], items: Iterable[Item], depth: int = 1) -> Iterator[Result]:
    """``map`` whose calls run in another thread, one after the other, while the results before are used.

    Args:
        function: what to do with an item.
        items: they are asked for in the consumer's thread.
        depth: how many results may wait.

    Raises:
        Exception: what ``function`` raised, when its result is due. Nothing runs any more when this ends.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix="background_map")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(worker.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        worker.shutdown(cancel_futures=True)
