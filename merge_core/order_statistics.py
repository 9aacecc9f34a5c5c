"""Exact order statistics of a task vector's magnitudes: counted once, then found at any rank with little work.

A count of the upper 16 bits says in which bin of magnitudes a rank lies; a bin holds about a thousandth of the
entries, and only those are compared with each other.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from merge_core import kernels
from merge_core.keep import Band, Keep

REMEMBERED = 16
"""Thresholds that are kept: a search that does not change a density asks for the same one again."""


class TaskVectorStatistics:
    """What is known of one task vector, found when first asked for. It holds no reference to the tensors.

    Every call must be given the same ``source`` and ``base``: flat, as `kernels` takes them.
    """

    def __init__(self) -> None:
        self._first_bin = 0
        self._above: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
        self._thresholds: dict[int, tuple[int, int]] = {}
        self._total: float | None = None

    def magnitude_sum(self, source: Tensor, base: Tensor | None) -> float:
        """Sum of all magnitudes."""
        if self._total is None:
            self._total = kernels.magnitude_sum(source, base, None)
        return self._total

    def threshold(self, source: Tensor, base: Tensor | None, count: int) -> tuple[int, int]:
        """Where the ``count`` largest magnitudes end, equal ones taken in memory order.

        Args:
            source, base: see above.
            count: 1 to the number of entries.

        Returns:
            Bits of the smallest magnitude among them, and the position before which entries equal to it are in.
        """
        known = self._thresholds.pop(count, None)
        if known is None:
            known = self._find(source, base, count)
        self._thresholds[count] = known
        if len(self._thresholds) > REMEMBERED:
            del self._thresholds[next(iter(self._thresholds))]
        return known

    def _find(self, source: Tensor, base: Tensor | None, count: int) -> tuple[int, int]:
        if self._above is None:
            counts = kernels.count_magnitudes(source, base)
            used = counts.nonzero()[0]
            self._first_bin = int(used[0])
            # Element b: how many lie in the bin first_bin + b or above.
            self._above = counts[used[0] : used[-1] + 1][::-1].cumsum()[::-1].copy()
        above = self._above
        # The last bin with at least `count` at or above it; the counts fall.
        place = int(np.searchsorted(-above, -count, side="right")) - 1
        higher = int(above[place + 1]) if place + 1 < above.size else 0
        bits, positions = kernels.collect_bin(source, base, self._first_bin + place, int(above[place]) - higher)
        wanted = count - higher
        threshold = np.partition(bits, bits.size - wanted)[bits.size - wanted]
        missing = wanted - int((bits > threshold).sum())
        return int(threshold), int(positions[bits == threshold][missing - 1]) + 1


def largest(statistics: TaskVectorStatistics, source: Tensor, base: Tensor | None, count: int) -> Keep:
    """Keep the ``count`` largest magnitudes (1 or more)."""
    if count >= source.numel():
        return None
    return Band(*statistics.threshold(source, base, count))


def all_but_largest(
    statistics: TaskVectorStatistics, source: Tensor, base: Tensor | None, count: int, dropped: int
) -> Keep:
    """Keep the ``count`` largest magnitudes (1 or more) that are left when the ``dropped`` largest are not."""
    if dropped == 0:
        return largest(statistics, source, base, count)
    low = (0, source.numel()) if count + dropped >= source.numel() else None
    return Band(
        *(low or statistics.threshold(source, base, count + dropped)), *statistics.threshold(source, base, dropped)
    )
