"""What the search asks of anything that can score a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from evolve.scoring.content_keys import code_keys, file_of
from evolve.scoring.language_model import LanguageModel
from evolve.scoring.task_config import Direction

ItemValue: TypeAlias = Any
"""A number where the metric is one per item; any other JSON value, such as a list of texts, where it is computed from
all items at once."""


@dataclass(frozen=True, slots=True)
class ScoredItems:
    """What a scorer found out about some items.

    Attributes:
        values: For each item what its metric keeps of it, as JSON would give it back.
        signals: For each item a continuous number in (0, 1), higher is better; empty when the task has none.
        skipped: Items that could not be scored and were left out because the user allows it, with the reason.
    """

    values: dict[int, ItemValue]
    signals: dict[int, float] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)


class TaskScore:
    """A task's score over some items.

    Args:
        value: In the metric's own unit and direction.
        stderr: Its standard error, or what computes it when it is first asked for: of a corpus metric it costs many
            times the score itself.
        items: How many items it comes from.
    """

    __slots__ = ("_stderr", "items", "value")

    def __init__(self, value: float, stderr: float | Callable[[], float | None] | None, items: int) -> None:
        self.value = value
        self.items = items
        self._stderr = stderr

    @property
    def stderr(self) -> float | None:
        """Standard error over the draw of items, None where one item leaves it unknown."""
        if callable(self._stderr):
            self._stderr = self._stderr()
        return self._stderr

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskScore):
            return NotImplemented
        return (self.value, self.stderr, self.items) == (other.value, other.stderr, other.items)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TaskScore(value={self.value!r}, stderr={self.stderr!r}, items={self.items!r})"


class Scorer(Protocol):
    """Scores a model on numbered items.

    An item's value is in the metric's own direction: the metric itself where the task's score is a mean, the negative
    log-likelihood in nats where it is a perplexity. Equal weights give equal values.

    Attributes:
        name: The name in reports, unique in a search.
        metric: As the user would spell it, for example `exact_match,strict-match`.
        direction: Whether the score should go up or down.
    """

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> str: ...

    @property
    def direction(self) -> Direction: ...

    def item_ids(self) -> tuple[int, ...]:
        """All items there are. The same number is the same item in every process."""

    def score(self, model: LanguageModel, item_ids: Sequence[int]) -> ScoredItems:
        """The value and the signal of each item; an item that the task gives no value for is left out.

        Raises:
            ScoringError: The model cannot be scored.
            TaskError: The task cannot be run as configured.
        """

    def aggregate(self, values: Mapping[int, ItemValue]) -> TaskScore:
        """The task's score from values that `score` returned, for any subset of the items."""

    def contributions(self, values: Mapping[int, ItemValue]) -> dict[int, float]:
        """One number for each item such that their plain mean is the task's score.

        For a mean metric these are the values. For any other they are linearised (or jackknife
        pseudo-values), so that statistics over items, a paired comparison say, hold for every metric.
        """


def content_keys_of(scorer: Scorer, item_ids: Sequence[int]) -> dict[str, str]:
    """What a scorer's values depend on beside the configuration and the model: what it is -> hash.

    A scorer tells by a method `content_keys(item_ids)`: its items, prompts, filters, and the code of the user's. Of one
    that has none, the code that it is written in counts.

    Args:
        scorer: Any scorer.
        item_ids: The items that are scored.
    """
    tell = getattr(scorer, "content_keys", None)
    if tell is not None:
        return dict(tell(item_ids))
    file = file_of(type(scorer))
    return code_keys(file) if file is not None else {}


def runs_user_code(scorer: Scorer) -> bool:
    """Whether code that is not ours is given the model; a kind of task that gives it to none says so."""
    return bool(getattr(scorer, "runs_user_code", True))


def has_answers_written(scorer: Scorer) -> bool:
    """Whether a task may have the model write answers; one that never does says so by `generates = False`."""
    return bool(getattr(scorer, "generates", True))


def is_mean_of_items(scorer: Scorer) -> bool:
    """Whether a task's score is the plain mean of its items' values, whatever they are."""
    values = {item: float(1 - place % 2) for place, item in enumerate(scorer.item_ids())}
    try:
        return scorer.contributions(values) == values
    except Exception:  # the task's own code, which was written for other values, may raise anything
        return False
