"""Scores a live model on lm-eval tasks and groups of them."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evolve.scoring.content_keys import content_key
from evolve.scoring.errors import ScoringError, TaskError
from evolve.scoring.language_model import (
    LanguageModel,
    Prepared,
    PreparedContinuation,
    PreparedGeneration,
    PreparedText,
)
from evolve.scoring.scorer import ItemValue, ScoredItems, Scorer, TaskScore
from evolve.scoring.scorers.lm_eval.harness_task import HarnessTask
from evolve.scoring.scorers.lm_eval.metric_choice import metrics_of
from evolve.scoring.scorers.lm_eval.requests import PreparedItem
from evolve.scoring.scorers.lm_eval.resolved_keys import resolved_keys
from evolve.scoring.scores.item_statistics import score_with_error
from evolve.scoring.targets import Target
from evolve.scoring.task_config import Direction


def is_benchmark_test(scorer: Scorer) -> bool:
    """Whether a scorer measures on a public benchmark's test data, as far as can be told.

    Searching on it and then reporting it is training on the test set.
    """
    return bool(getattr(scorer, "is_benchmark_test", False))


def every_metric(scorer: Scorer) -> tuple[Scorer, ...]:
    """The scorer, then one for every other metric that its task produces.

    They ask for the same answers: see `RememberedAnswers`.
    """
    every = getattr(scorer, "every_metric", None)
    return (scorer,) if every is None else tuple(every())


class LmEvalScorer:
    """Scores a live model on one task, or on several whose scores are averaged.

    Items of several tasks are numbered through, one task after the other.

    Args:
        name: In reports.
        members: The tasks, at least one.
        weight_by_size: Whether the average weighs tasks by their scored items (else equally).
        is_benchmark_test: Whether a member is lm-eval's own and not on training data.
    """

    runs_user_code = False

    def __init__(
        self,
        name: str,
        members: Sequence[HarnessTask],
        weight_by_size: bool,
        is_benchmark_test: bool,
    ) -> None:
        self._name = name
        self._members = tuple(members)
        self._weight_by_size = weight_by_size
        self.is_benchmark_test = is_benchmark_test
        self._starts = [0]
        for member in self._members:
            self._starts.append(self._starts[-1] + len(member.documents))

    @property
    def name(self) -> str:
        """The name in reports."""
        return self._name

    @property
    def metric(self) -> str:
        """The metric and its filter, as lm-eval spells them."""
        return str(self._members[0].choice)

    @property
    def direction(self) -> Direction:
        """Whether the metric should go up or down."""
        return self._members[0].direction

    @property
    def generates(self) -> bool:
        """Whether the model writes answers."""
        return any(member.generates for member in self._members)

    @property
    def data_files(self) -> tuple[str, ...]:
        """Files of items that the tasks name, as they are on this machine."""
        return tuple(file for member in self._members for file in member.data_files)

    def content_keys(self, item_ids: Sequence[int]) -> dict[str, str]:
        """The resolved tasks, these items, and the code of the user's; see `content_keys_of`."""
        found: dict[str, str] = {}
        for index, items in self._by_member(item_ids).items():
            member = self._members[index]
            prefix = f"{member.task.task_name}: " if len(self._members) > 1 else ""
            found |= {f"{prefix}{what}": key for what, key in resolved_keys(member, items).items()}
        return found | {"weights of its members": content_key([self._weight_by_size, self._starts])}

    @property
    def members(self) -> tuple[HarnessTask, ...]:
        """The tasks that are averaged."""
        return self._members

    def every_metric(self) -> tuple[LmEvalScorer, ...]:
        """This scorer, then one for every other metric that all its tasks produce item by item."""
        scorers = [self]
        produced = [{str(choice): None for choice in metrics_of(member.task)} for member in self._members]
        for metric in produced[0]:
            if metric == self.metric or any(metric not in others for others in produced):
                continue
            with contextlib.suppress(TaskError):  # what cannot be computed item by item is left out
                members = [member.measured_by(metric) for member in self._members]
                scorers.append(LmEvalScorer(self._name, members, self._weight_by_size, self.is_benchmark_test))
        return tuple(scorers)

    def item_ids(self) -> tuple[int, ...]:
        """All items there are."""
        return tuple(range(self._starts[-1]))

    def prepared_requests(self, model: LanguageModel, item_ids: Sequence[int]) -> list[Prepared]:
        """What is asked of each item; see `TellsRequests`."""
        prepared = [item for items in self._prepared(model, item_ids).values() for item in items.values()]
        return [request for item in prepared for request in (*item.requests, *item.gold)]

    def score(self, model: LanguageModel, item_ids: Sequence[int]) -> ScoredItems:
        """The value and the signal of each item; see `Scorer`."""
        prepared = self._prepared(model, item_ids)
        responses = _run(model, [item for items in prepared.values() for item in items.values()])
        values: dict[int, ItemValue] = {}
        signals: dict[int, float] = {}
        for index, items in prepared.items():
            member, start = self._members[index], self._starts[index]
            answered = {item: next(responses) for item in items}
            answers = {item: found for item, (found, _) in answered.items()}
            gold = {item: found for item, (_, found) in answered.items()}
            values |= {start + item: value for item, value in member.values(items, answers).items()}
            signals |= {start + item: signal for item, signal in member.signals(items, answers, gold).items()}
        return ScoredItems(values, signals)

    def targets(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, Target]:
        """What the model should say of each item that has a right answer."""
        found = {
            self._starts[index] + item: self._members[index].target(model, item)
            for index, items in self._by_member(item_ids).items()
            for item in items
        }
        return {item: target for item, target in found.items() if target is not None}

    def aggregate(self, values: Mapping[int, ItemValue]) -> TaskScore:
        """The score: the task's own, or the members' average.

        Raises:
            ScoringError: There are no values, or the score is not finite.
        """
        scores = {
            index: score_with_error(self._members[index].statistic, part) for index, part in self._parts(values).items()
        }
        weights = self._weights({index: score.items for index, score in scores.items()})

        def stderr() -> float | None:
            if any(score.stderr is None for score in scores.values()):
                return None
            return math.sqrt(sum((weights[i] * (score.stderr or 0.0)) ** 2 for i, score in scores.items()))

        return TaskScore(sum(weights[i] * score.value for i, score in scores.items()), stderr, len(values))

    def contributions(self, values: Mapping[int, ItemValue]) -> dict[int, float]:
        """One number per item whose mean is the score; see `Scorer`.

        Where members count by another share than that of their items, an item's number is the score plus its deviation
        from its member's, times the ratio of the shares (linearised stratified mean, Cochran 1977, chapter 5). So
        their standard error is the score's, to which how far members are apart adds nothing.
        """
        parts = self._parts(values)
        weights = self._weights({index: len(part) for index, part in parts.items()})
        ratios = {index: weights[index] * len(values) / len(part) for index, part in parts.items()}
        found = {index: self._members[index].statistic.contributions(part) for index, part in parts.items()}
        if all(math.isclose(ratio, 1.0) for ratio in ratios.values()):  # shares of right items remain zeros and ones
            return {self._starts[index] + item: value for index in found for item, value in found[index].items()}
        means = {index: math.fsum(numbers.values()) / len(numbers) for index, numbers in found.items()}
        score = sum(weights[index] * mean for index, mean in means.items())
        return {
            self._starts[index] + item: score + ratios[index] * (value - means[index])
            for index, numbers in found.items()
            for item, value in numbers.items()
        }

    def _weights(self, items: Mapping[int, int]) -> dict[int, float]:
        sizes = {index: count if self._weight_by_size else 1 for index, count in items.items()}
        return {index: size / sum(sizes.values()) for index, size in sizes.items()}

    def _parts(self, values: Mapping[int, ItemValue]) -> dict[int, dict[int, ItemValue]]:
        if not values:
            raise ScoringError(f"task {self._name!r}: no item has a value")
        return {
            index: {item: values[self._starts[index] + item] for item in items}
            for index, items in self._by_member(values).items()
        }

    def _prepared(self, model: LanguageModel, item_ids: Sequence[int]) -> dict[int, dict[int, PreparedItem]]:
        return {
            index: {item: self._members[index].prepare(model, item) for item in items}
            for index, items in self._by_member(item_ids).items()
        }

    def _by_member(self, item_ids: Sequence[int] | Mapping[int, ItemValue]) -> dict[int, list[int]]:
        parts: dict[int, list[int]] = defaultdict(list)
        index = 0
        for item in sorted(set(item_ids)):
            if not 0 <= item < self._starts[-1]:
                raise TaskError(f"task {self._name!r}: there is no item {item}; it has {self._starts[-1]}")
            while item >= self._starts[index + 1]:
                index += 1
            parts[index].append(item - self._starts[index])
        return dict(parts)


def _run(model: LanguageModel, items: Sequence[PreparedItem]) -> Iterator[tuple[list[list[Any]], list[float]]]:
    """Run all requests of all items in as few calls as there are kinds.

    Yields:
        Each item's responses, and the log-likelihoods of its gold answers.
    """
    queues: dict[type, list[Prepared]] = {PreparedGeneration: [], PreparedContinuation: [], PreparedText: []}
    for item in items:
        for request, copies in zip(item.requests, item.copies, strict=True):
            queues[type(request)] += [request] * copies
        queues[PreparedContinuation] += item.gold
    run: dict[type, Callable[[Any], list[Any]]] = {
        PreparedGeneration: model.generate,
        PreparedContinuation: model.loglikelihood,
        PreparedText: model.loglikelihood_rolling,
    }
    responses = {kind: iter(run[kind](queue) if queue else ()) for kind, queue in queues.items()}
    for item in items:
        answers = []
        for instance, request, copies in zip(item.instances, item.requests, item.copies, strict=True):
            drawn = [next(responses[type(request)]) for _ in range(copies)]
            answers.append(drawn * (instance.repeats // copies))
        yield answers, [next(responses[PreparedContinuation])[0] for _ in item.gold]
