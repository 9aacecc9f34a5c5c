"""What scorers with one number per item have in common: everything but getting the numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from evolve.scoring.errors import TaskError
from evolve.scoring.scorer import ItemValue, TaskScore
from evolve.scoring.scores.item_statistics import ItemStatistic, score_with_error
from evolve.scoring.task_config import Direction


class StatisticScorer:
    """A scorer whose score is a statistic of its items; a kind of task adds `score`.

    Args:
        name: In reports.
        metric: As the user would spell it.
        direction: Whether it should go up or down.
        count: How many items there are.
        statistic: What becomes of the items' values.
        content: What the scores depend on beside the configuration and the model: items, functions.

    Attributes:
        content_key: A hash of the content; scores with different ones cannot be compared.
    """

    def __init__(
        self, name: str, metric: str, direction: Direction, count: int, statistic: ItemStatistic, content: object
    ) -> None:
        self.name = name
        self.metric = metric
        self.direction: Direction = direction
        self._count = count
        self._statistic = statistic
        self.content_key = content_key(content)

    def item_ids(self) -> tuple[int, ...]:
        """All items there are, in the order of the user's data."""
        return tuple(range(self._count))

    def aggregate(self, values: Mapping[int, ItemValue]) -> TaskScore:
        """The task's score.

        Raises:
            ScoringError: There are no values, or the score is not finite.
        """
        return score_with_error(self._statistic, values)

    def contributions(self, values: Mapping[int, ItemValue]) -> dict[int, float]:
        """One number per item whose mean is the score; see `Scorer`."""
        return self._statistic.contributions(values)

    def _checked(self, item_ids: Sequence[int]) -> list[int]:
        """The items to score, ascending and each once, so that the order of asking changes nothing.

        Raises:
            TaskError: One does not exist.
        """
        ids = sorted(set(item_ids))
        for item in ids:
            if not 0 <= item < self._count:
                raise TaskError(f"task {self.name!r}: there is no item {item}; it has {self._count}")
        return ids


def content_key(content: object) -> str:
    """A hash of what scores depend on beside configuration and model."""
    # Objects count by their type alone: their text may hold an address, which differs from process to process.
    text = json.dumps(content, skipkeys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode()).hexdigest()
