"""Exact order statistics of a task vector's magnitudes: counted once, then found at any rank with little work.

A count of the upper 16 bits says in which bin of magnitudes a rank lies. Which value in the bin, and which of the
entries with that value, is counted when a rank first falls there, and remembered. Differences of 16-bit numbers have
few values: a search, which asks for many ranks, has all that are frequent counted at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from merge_core.kernels import dispatch
from merge_core.kernels.selection import MagnitudeRange, Mask, Selection

Counts = np.ndarray[Any, np.dtype[Any]]
Known = TypeVar("Known")
Memo = Callable[[str, Callable[[], Counts]], Counts]

REMEMBERED = 1024
"""Bins, values and thresholds that are remembered, each."""

MANY_RANKS = 3
"""So many different ranks are asked for by a search, and not by one merge."""

FREQUENT = 4096
"""A bin or value with at least this part of all entries is counted beforehand."""

MOST_BINS = 512
"""Bins that are counted beforehand at most: 128 KiB each while they are."""

FEW_VALUES = 1024
"""A bin with more values than this is not remembered: float32 sources have as many as entries."""


class TaskVectorStatistics:
    """What is known of one task vector, found when first asked for. It holds no reference to the tensors.

    Every call must be given the same ``source`` and ``base``: flat, as `kernels` takes them.

    Args:
        memo: ``memo(name, make)`` → the array that is kept under a name, or else made; None keeps nothing.
    """

    def __init__(self, memo: Memo | None = None) -> None:
        self._memo = memo
        self._rankings = 0
        self._first_bin = 0
        self._above: Counts | None = None
        self._bins: OrderedDict[int, tuple[Counts, Counts]] = OrderedDict()
        self._parts: OrderedDict[int, Counts] = OrderedDict()
        self._thresholds: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._total: float | None = None
        self._prepared = False

    def magnitude_sum(self, source: Tensor, base: Tensor | None) -> float:
        """Sum of all magnitudes."""
        if self._total is None:
            self._total = dispatch.magnitude_sum(source, base, None)
        return self._total

    def threshold(self, source: Tensor, base: Tensor | None, count: int) -> tuple[int, int]:
        """Where the ``count`` largest magnitudes end, equal ones taken in memory order.

        Args:
            source, base: see above.
            count: 1 to the number of entries.

        Returns:
            Bits of the smallest magnitude among them, and the position before which entries equal to it are in.
        """
        if len(self._thresholds) == MANY_RANKS and count not in self._thresholds and not self._prepared:
            self._prepare(source, base)
        return _remember(self._thresholds, count, lambda: self._find(source, base, count))

    def _prepare(self, source: Tensor, base: Tensor | None) -> None:
        """Count the frequent values, in the tensor and in each part of it."""
        self._prepared = True
        above, enough = self._counts(source, base), source.numel() / FREQUENT
        entries = -np.diff(above, append=0)
        largest_first = (-entries).argsort(kind="stable")[:MOST_BINS]
        bins = sorted(self._first_bin + int(place) for place in largest_first if entries[place] >= enough)
        if not bins:
            return
        table = self._kept("values", lambda: dispatch.count_values(source, base, bins))
        for number in bins:
            start, end = np.searchsorted(table[0], [number << 15, number + 1 << 15])
            if end - start <= FEW_VALUES:
                low = (table[0, start:end] & 0x7FFF).astype(np.uint16)
                self._bins[number] = low, _from_above(table[1, start:end])
        values = [int(bits) for bits in table[0, table[1] >= enough]]
        if values:
            by_part = self._kept("parts", lambda: _by_value(dispatch.count_values_by_part(source, base, values)))
            self._parts.update(zip(values, by_part, strict=True))

    def _kept(self, name: str, make: Callable[[], Counts]) -> Counts:
        return make() if self._memo is None else self._memo(name, make)

    def rank_mask(self, source: Tensor, base: Tensor | None, key: int, limits: Tensor) -> Mask:
        """`dispatch.rank_mask`. From the second time on the ranks are kept, where there is a place for them."""
        self._rankings += 1
        if self._memo is None or self._rankings == 1 or not dispatch.has_ranks(source):
            return dispatch.rank_mask(source, base, key, limits)
        ranks = self._memo("ranks", lambda: dispatch.ranks(source, base, limits.numel()))
        return dispatch.draw_by_rank(ranks, key, limits)

    def _find(self, source: Tensor, base: Tensor | None, count: int) -> tuple[int, int]:
        number, higher = self._bin(source, base, count)
        values, above = self._values(source, base, number)
        # The last value with at least so many at or above it; the counts fall.
        place = int(np.searchsorted(-above, higher - count, side="right")) - 1
        bits = (number << 15) + int(values[place])
        greater = int(above[place + 1]) if place + 1 < above.size else 0
        equal, wanted = int(above[place]) - greater, count - higher - greater
        if wanted == equal:
            return bits, source.numel()
        ends = _remember(self._parts, bits, lambda: dispatch.count_equal(source, base, bits).cumsum(dtype=np.int64))
        part = int(np.searchsorted(ends, wanted))
        before = int(ends[part - 1]) if part else 0
        return bits, dispatch.position_of(source, base, bits, wanted - before, part) + 1

    def _bin(self, source: Tensor, base: Tensor | None, count: int) -> tuple[int, int]:
        """The bin of the ``count``-th largest magnitude, and how many are in higher bins."""
        above = self._counts(source, base)
        place = int(np.searchsorted(-above, -count, side="right")) - 1
        return self._first_bin + place, int(above[place + 1]) if place + 1 < above.size else 0

    def _counts(self, source: Tensor, base: Tensor | None) -> Counts:
        """Element b: how many lie in the bin ``_first_bin + b`` or above."""
        if self._above is None:
            counts = self._kept("bins", lambda: dispatch.count_magnitudes(source, base))
            used = counts.nonzero()[0]
            self._first_bin = int(used[0])
            self._above = _from_above(counts[used[0] : used[-1] + 1])
        return self._above

    def _values(self, source: Tensor, base: Tensor | None, number: int) -> tuple[Counts, Counts]:
        """The low bits in a bin, ascending, and how many of its entries have those or higher ones."""
        known = self._bins.get(number)
        if known is not None:
            self._bins.move_to_end(number)
            return known
        counts = dispatch.count_low_bits(source, base, number)
        values = counts.nonzero()[0]
        found = values.astype(np.uint16), _from_above(counts[values])
        return _remember(self._bins, number, lambda: found) if values.size <= FEW_VALUES else found


def _by_value(counts: Counts) -> Counts:
    """Counts by part and value → up to the end of each part, by value."""
    return np.ascontiguousarray(counts.cumsum(axis=0, dtype=np.int64).T)


def _from_above(counts: Counts) -> Counts:
    """Sums of each element and all after it."""
    return counts[::-1].cumsum(dtype=np.int64)[::-1].copy()


def _remember(known: OrderedDict[int, Known], key: int, find: Callable[[], Known]) -> Known:
    """Look up, or find and keep; what was not asked for the longest is forgotten."""
    if key not in known:
        known[key] = find()
        if len(known) > REMEMBERED:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]


def largest(statistics: TaskVectorStatistics, source: Tensor, base: Tensor | None, count: int) -> Selection:
    """Keep the ``count`` largest magnitudes (1 or more)."""
    if count >= source.numel():
        return None
    return MagnitudeRange(*statistics.threshold(source, base, count))


def all_but_largest(
    statistics: TaskVectorStatistics, source: Tensor, base: Tensor | None, count: int, dropped: int
) -> Selection:
    """Keep the ``count`` largest magnitudes (1 or more) that are left when the ``dropped`` largest are not."""
    if dropped == 0:
        return largest(statistics, source, base, count)
    low = (0, source.numel()) if count + dropped >= source.numel() else None
    return MagnitudeRange(
        *(low or statistics.threshold(source, base, count + dropped)), *statistics.threshold(source, base, dropped)
    )
