"""Ranking the magnitudes of rows, compiled by numba.

A row is not sorted: its magnitudes are counted into as many buckets as it has entries, which gives each its place but
for its order within a bucket, and there are few in one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from merge_core.kernels.compiled_elements import as_bits, compiled, inlined, load, task_vector

_OCTAVES = 16
"""Powers of two below the largest magnitude that have buckets of their own; what is smaller shares the first."""

_PATIENCE = 16
"""Entries that are moved for each one of a row, before it is sorted instead: its magnitudes are all alike, or few
stand out so far that the others share a bucket."""


@compiled
def rank_rows(source: Any, base: Any, length: int, ranks: Any, rows: Any) -> None:
    """Ranks of magnitudes in the rows ``rows[0]`` to ``rows[1]``, smallest first, equal ones in memory order.

    Args:
        source, base: int64 (2,): address and dtype code.
        length: of a row.
        ranks: uint16 or int32, flat, of the whole tensor.
        rows: int64 (2,).
    """
    doublings = 8
    while doublings < 16 and (1 << doublings) < length:
        doublings += 1
    ends = np.empty(1 << doublings, np.int32)
    scratch = np.empty((2, length), np.float32)
    words = np.empty((2, length), np.uint32)
    orders = np.empty((2, length), np.uint32)
    for row in range(rows[0], rows[1]):
        start = row * length
        origin, values = scratch[0], scratch[1]
        if base[0] != 0:
            load(base[0], base[1], start, origin)
        task_vector(source[0], source[1], start, origin, base[0] != 0, values)
        own = ranks[start : start + length]
        largest = _magnitudes(values, words[1])
        _bucket(words[1], largest, doublings, orders[1])
        _place(words[1], orders[1], ends, words[0], orders[0], own)
        if not _order_within(words[0], orders[0], own):
            _magnitudes(values, words[0])
            _sort(words, orders, own)


@inlined
def _magnitudes(values: Any, words: Any) -> Any:
    largest = np.uint32(0)
    for i in range(values.size):
        word = np.uint32(as_bits(values[i]) & np.uint32(0x7FFFFFFF))
        words[i] = word
        largest = max(largest, word)
    return largest


@inlined
def _bucket(words: Any, largest: Any, doublings: int, buckets: Any) -> None:
    width = np.uint32(27 - doublings)  # of a bucket, in bits: there are 23 to an octave, and 4 make the octaves
    span = np.uint32(_OCTAVES << 23)
    least = np.uint32(largest - span + np.uint32(1)) if largest >= span else np.uint32(0)
    for i in range(words.size):
        buckets[i] = np.uint32(max(words[i], least) - least) >> width


@inlined
def _place(words: Any, buckets: Any, ends: Any, placed: Any, order: Any, ranks: Any) -> None:
    """Bring a row into the order of its buckets, and within each into that of memory; ``ranks`` are the places."""
    ends[:] = 0
    for i in range(words.size):
        ends[buckets[i]] += 1
    total = 0
    for bucket in range(ends.size):
        count = ends[bucket]
        ends[bucket] = total
        total += count
    for i in range(words.size):
        place = ends[buckets[i]]
        ends[buckets[i]] = place + 1
        ranks[i] = place
        placed[place] = words[i]
        order[place] = i


@inlined
def _order_within(words: Any, order: Any, ranks: Any) -> bool:
    """Sort what is nearly sorted, by insertion; False when it is not, and everything is left in disorder."""
    moves = _PATIENCE * words.size
    for i in range(1, words.size):
        word = words[i]
        if word >= words[i - 1]:
            continue
        entry, place = order[i], i
        while place > 0 and words[place - 1] > word:
            words[place] = words[place - 1]
            order[place] = order[place - 1]
            ranks[order[place]] = place
            place -= 1
        words[place] = word
        order[place] = entry
        ranks[entry] = place
        moves -= i - place
        if moves < 0:
            return False
    return True


@inlined
def _sort(words: Any, orders: Any, ranks: Any) -> None:
    """A stable radix sort, 11 bits at a time; the first rows hold the magnitudes in memory order."""
    counts = np.zeros((3, 2048), np.int64)
    for i in range(ranks.size):
        word = words[0, i]
        orders[0, i] = np.uint32(i)
        counts[0, word & np.uint32(2047)] += 1
        counts[1, (word >> np.uint32(11)) & np.uint32(2047)] += 1
        counts[2, word >> np.uint32(22)] += 1
    for digit in range(3):
        total = 0
        for i in range(2048):
            count = counts[digit, i]
            counts[digit, i] = total
            total += count
        old, new = digit % 2, 1 - digit % 2
        shift = np.uint32(11 * digit)
        for i in range(ranks.size):
            word = words[old, i]
            place = (word >> shift) & np.uint32(2047)
            target = counts[digit, place]
            counts[digit, place] = target + 1
            words[new, target] = word
            orders[new, target] = orders[old, i]
    for rank in range(ranks.size):
        ranks[orders[1, rank]] = rank
