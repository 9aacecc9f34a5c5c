"""Which entries of a task vector are kept: by magnitude, by random numbers, or by both."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from merge_core.kernels.order_statistics import TaskVectorStatistics, all_but_largest, largest
from merge_core.kernels.random_numbers import BITS
from merge_core.kernels.selection import NOTHING, RandomSelection, RankedSelection, Selection


@dataclass(frozen=True, slots=True)
class TaskVector:
    """``source − base``, which is never made.

    Attributes:
        source, base: flat, as stored.
        shape: of the tensors.
        statistics: what is known of it.
        key: of its random numbers.
    """

    source: Tensor
    base: Tensor
    shape: tuple[int, ...]
    statistics: TaskVectorStatistics
    key: int


def trim(vector: TaskVector, density: float) -> Selection:
    """Keep exactly the ``⌊density·n⌋`` entries of largest magnitude (TIES, arXiv:2306.01708, section 4.2).

    A density above 0 keeps at least one. Among equal magnitudes at the threshold the first in memory order are
    kept, so the result is the same on any device and with any number of threads.
    """
    if density <= 0.0:
        return NOTHING
    count = vector.source.numel()
    kept = min(max(int(density * count), 1), count)
    return largest(vector.statistics, vector.source, vector.base, kept) if count else None


def trim_both(vector: TaskVector, density: float, gamma: float) -> Selection:
    """Drop the ``⌊γ·n⌋`` largest magnitudes and so many of the smallest that ``⌊density·n⌋`` remain.

    When ``γ > 1 − density`` fewer of the largest are dropped. Model Breadcrumbs, Davari and Belilovsky 2023,
    arXiv:2312.06795, section 3.
    """
    count = vector.source.numel()
    kept = min(int(density * count), count)
    if kept <= 0:
        return NOTHING
    outliers = min(int(gamma * count), count - kept)
    if outliers <= 0:
        return largest(vector.statistics, vector.source, vector.base, kept)
    return all_but_largest(vector.statistics, vector.source, vector.base, kept, outliers)


def drop_at_random(vector: TaskVector, density: float) -> Selection:
    """Keep an entry when its draw is below the density (DARE, arXiv:2311.03099, eq. 3).

    The draws do not depend on the density, so an entry kept at density 0.4 is kept at 0.5 too.
    """
    return None if density >= 1.0 else RandomSelection(vector.key, max(math.ceil(density * 2**BITS), 0))


def drop_by_rank(vector: TaskVector, density: float, epsilon: float) -> Selection:
    """Keep an entry with a probability that rises linearly with its magnitude's rank in its row.

    From ``d − ε`` to ``d + ε``; density 0 drops and density 1 keeps everything, whatever ``ε``. DELLA's MagPrune,
    Deep et al. 2024, arXiv:2406.11617, section 3.1. A tensor of one dimension is one row.
    """
    if density >= 1.0 or density <= 0.0:
        return None if density >= 1.0 else NOTHING
    length = max(vector.shape[-1], 1) if vector.shape else 1
    spread = epsilon if length > 1 else 0.0
    slope = int(2 * spread * 2**32 / max(length - 1, 1))
    limit = math.ceil(density * 2**BITS) - int(spread * 2**BITS)
    return RankedSelection(vector.key, vector.statistics.ranks(vector.source, vector.base, length), limit, slope)
