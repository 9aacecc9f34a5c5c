"""What scorers with one number per item have in common: everything but getting the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evolve.scoring.content_keys import content_key
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
        content: What the scores depend on beside the configuration and the model: the items.
        code: The files of functions of the user's: name -> hash.
    """

    def __init__(
        self,
        name: str,
        metric: str,
        direction: Direction,
        count: int,
        statistic: ItemStatistic,
        content: object,
        code: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.metric = metric
        self.direction: Direction = direction
        self._count = count
        self._statistic = statistic
        self._content_keys = {"items": content_key(content), **(code or {})}

    def content_keys(self, item_ids: Sequence[int]) -> dict[str, str]:
        """What the scores depend on beside the configuration and the model; see `Scorer`."""
        return self._content_keys

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
