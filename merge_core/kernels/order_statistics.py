"""Exact order statistics of a task vector's magnitudes: counted once, then found at any rank with little work.

Counted is how often every magnitude that begins a bin occurs, and how many lie in the rest of each bin
(`eager.count_magnitudes`). Differences of 16-bit numbers are nearly all such magnitudes, so that these counts say which
one a rank falls on; elsewhere a bin is counted value by value when a rank first falls there. Which of the entries with
that magnitude are in is told by how many there are in each part of the tensor: a search, which asks for many ranks,
counts all frequent magnitudes at once; else one is counted from the start, until there are enough.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from merge_core.kernels import dispatch
from merge_core.kernels.constants import PART
from merge_core.kernels.eager import low_bits
from merge_core.kernels.random_numbers import GENERATOR
from merge_core.kernels.selection import AfterEqual, MagnitudeRange, RandomSelection, RankedSelection, Selection

Counts = np.ndarray[Any, np.dtype[Any]]
Key = TypeVar("Key")
Known = TypeVar("Known")
Memo = Callable[[str, Callable[[], Counts]], Counts]

REMEMBERED = 1024
"""Bins and thresholds that are remembered, each."""

MANY_RANKS = 2
"""So many different ranks are asked for by a merge; more by a search, even where nothing is kept for it."""

FREQUENT = 4096
"""A magnitude with at least this part of all entries is counted by parts beforehand."""

LOOKED_AT = 16
"""Parts at a time in which a magnitude is looked for that was not counted beforehand."""

MANY_ENTRIES = 1 << 20
"""Of a task vector whose magnitudes are summed by draw beforehand, which takes a table of 2¹⁷ numbers."""

FEW_VALUES = 1024
"""A bin with more values than this is not remembered: float32 sources have as many as entries."""


class TaskVectorStatistics:
    """What is known of one task vector, found when first asked for. It holds no reference to the tensors.

    Every call must be given the same ``source`` and ``base``: flat, as `kernels` takes them.

    Args:
        memo: ``memo(name, make)`` → the array that is kept under a name, or else made; None keeps nothing. A search
            gives one and asks for much, so what answers all of it is made when it first asks.
    """

    def __init__(self, memo: Memo | None = None) -> None:
        self._memo = memo
        self._counted: tuple[Counts, Counts] | None = None
        self._bins: OrderedDict[int, tuple[Counts, Counts]] = OrderedDict()
        self._parts: dict[int, Counts] = {}
        self._thresholds: OrderedDict[tuple[int, str], tuple[int, int | AfterEqual]] = OrderedDict()
        self._unit: float | None = None
        self._total: int | None = None
        self._limits: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._drawn: OrderedDict[tuple[int, int], Counts] = OrderedDict()
        self._prepared = False

    def magnitude_sum(self, source: Tensor, base: Tensor | None, rule: Selection) -> int:
        """The sum of the magnitudes of what a rule keeps, in a unit that is always the same."""
        if self._unit is None:
            self._unit = dispatch.sum_unit(source, base)
        if isinstance(rule, (RandomSelection, RankedSelection)) and self._memo and source.numel() >= MANY_ENTRIES:
            drawn = rule.key, rule.slope if isinstance(rule, RankedSelection) else 0
            # A search asks at many densities. Slopes may be as many: others than the first wait for a second limit.
            known = drawn in self._drawn or not self._drawn
            if known or _remember(self._limits, drawn, lambda: rule.limit) != rule.limit:
                return int(self._sums_by_limit(source, base, rule, drawn)[(1 << 16) + rule.limit])
        if rule is not None:
            return dispatch.magnitude_sum(source, base, rule, self._unit)
        if self._total is None:
            self._total = dispatch.magnitude_sum(source, base, None, self._unit)
        return self._total

    def _sums_by_limit(
        self, source: Tensor, base: Tensor | None, rule: RandomSelection | RankedSelection, drawn: tuple[int, int]
    ) -> Counts:
        """Element ``2¹⁶ + l``: the sum of the magnitudes that ``limit = l`` keeps."""
        unit = self._unit or 1.0

        def make() -> Counts:
            return np.concatenate([[0], dispatch.sum_by_draw(source, base, rule, unit).cumsum()])

        sums = _remember(self._drawn, drawn, lambda: self._kept(f"sums {GENERATOR} {drawn}", make))
        self._total = int(sums[-1])
        return sums

    def threshold(self, source: Tensor, base: Tensor | None, count: int) -> tuple[int, int | AfterEqual]:
        """Where the ``count`` largest magnitudes end, equal ones taken in memory order.

        Args:
            source, base: see above.
            count: 1 to the number of entries.

        Returns:
            Bits of the smallest magnitude among them, and the position before which entries equal to it are in.
        """
        key = count, source.device.type  # other devices look positions up themselves
        is_search = self._memo is not None or len(self._thresholds) == MANY_RANKS
        if is_search and key not in self._thresholds and not self._prepared:
            self._prepare(source, base)
        return _remember(self._thresholds, key, lambda: self._find(source, base, count))

    def _prepare(self, source: Tensor, base: Tensor | None) -> None:
        """Count the frequent magnitudes that begin bins in each part of the tensor."""
        self._prepared = True
        codes, above = self._counts(source, base)
        frequent = (codes % 2 == 0) & (-np.diff(above, append=0) >= source.numel() / FREQUENT)
        values = [int(code) // 2 << low_bits(source) for code in codes[frequent]]
        if values:
            by_part = self._kept("frequent", lambda: _by_value(dispatch.count_by_part(source, base, values)))
            self._parts.update(zip(values, by_part, strict=True))

    def _kept(self, name: str, make: Callable[[], Counts]) -> Counts:
        return make() if self._memo is None else self._memo(name, make)

    def ranks(self, source: Tensor, base: Tensor | None, length: int) -> Tensor:
        """`dispatch.ranks`; those that a CPU finds are kept, where there is a place for them."""
        if self._memo is None or source.device.type != "cpu":
            return dispatch.ranks(source, base, length)
        return torch.from_numpy(self._memo("ranks", lambda: dispatch.ranks(source, base, length).numpy()))

    def _find(self, source: Tensor, base: Tensor | None, count: int) -> tuple[int, int | AfterEqual]:
        codes, above = self._counts(source, base)
        # The last magnitude with at least so many at or above it; the counts fall.
        place = int(np.searchsorted(-above, -count, side="right")) - 1
        number, rest = divmod(int(codes[place]), 2)
        greater = int(above[place + 1]) if place + 1 < above.size else 0
        equal, bits = int(above[place]) - greater, number << low_bits(source)
        if rest:
            values, within = self._values(source, base, number)
            place = int(np.searchsorted(-within, greater - count, side="right")) - 1
            bits += int(values[place])
            fewer = int(within[place + 1]) if place + 1 < within.size else 0
            equal, greater = int(within[place]) - fewer, greater + fewer
        wanted = count - greater
        if wanted == equal:
            return bits, source.numel()
        part, before = self._part_with(source, base, bits, wanted)
        return bits, dispatch.position_after(source, base, bits, wanted - before, part)

    def _part_with(self, source: Tensor, base: Tensor | None, bits: int, wanted: int) -> tuple[int, int]:
        """The part of the tensor with the ``wanted``-th magnitude that is ``bits``, and how many are before it."""
        ends, first, before = self._parts.get(bits), 0, 0
        while ends is None:  # from the start, until there are enough
            span = slice(first * PART, (first + LOOKED_AT) * PART)
            counts = dispatch.count_equal(source[span], None if base is None else base[span], bits)
            sums = before + counts.cumsum(dtype=np.int64)
            if sums[-1] >= wanted:
                ends = sums
            else:
                first, before = first + LOOKED_AT, int(sums[-1])
        part = int(np.searchsorted(ends, wanted))
        return first + part, int(ends[part - 1]) if part else before

    def _counts(self, source: Tensor, base: Tensor | None) -> tuple[Counts, Counts]:
        """The codes of `eager.count_magnitudes` that occur, ascending, and how many have those or higher ones."""
        if self._counted is None:
            codes, counts = self._kept("magnitudes", lambda: dispatch.count_magnitudes(source, base))
            self._counted = codes, _from_above(counts)
        return self._counted

    def _values(self, source: Tensor, base: Tensor | None, number: int) -> tuple[Counts, Counts]:
        """The low bits in a bin but 0, ascending, and how many of its entries have those or higher ones."""
        known = self._bins.get(number)
        if known is not None:
            self._bins.move_to_end(number)
            return known
        counts = dispatch.count_low_bits(source, base, number)
        values = 1 + counts[1:].nonzero()[0]
        found = values.astype(np.uint16), _from_above(counts[values])
        return _remember(self._bins, number, lambda: found) if values.size <= FEW_VALUES else found


def _by_value(counts: Counts) -> Counts:
    """Counts by part and value → up to the end of each part, by value."""
    return np.ascontiguousarray(counts.cumsum(axis=0, dtype=np.int64).T)


def _from_above(counts: Counts) -> Counts:
    """Sums of each element and all after it."""
    return counts[::-1].cumsum(dtype=np.int64)[::-1].copy()


def _remember(known: OrderedDict[Key, Known], key: Key, find: Callable[[], Known]) -> Known:
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
