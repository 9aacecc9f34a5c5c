"""One lm-eval task whose prompts are built once and whose metric is computed for every candidate."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from evolve.scoring.errors import ScoringError, TaskError
from evolve.scoring.language_model import (
    ChatFormat,
    GenerationSettings,
    LanguageModel,
    Prepared,
    PreparedContinuation,
    PreparedGeneration,
)
from evolve.scoring.scorer import ItemValue
from evolve.scoring.scorers.lm_eval.config import LmEvalTask
from evolve.scoring.scorers.lm_eval.configured_task import configure, generates
from evolve.scoring.scorers.lm_eval.context_builder import ContextBuilder
from evolve.scoring.scorers.lm_eval.documents import Documents
from evolve.scoring.scorers.lm_eval.item_signal import gold_answers, has_signal, item_signal
from evolve.scoring.scorers.lm_eval.item_target import item_target
from evolve.scoring.scorers.lm_eval.metric_choice import MetricChoice, choose_metric, direction_of, statistic_of
from evolve.scoring.scorers.lm_eval.requests import (
    PreparedItem,
    copies_of,
    prepare_request,
)
from evolve.scoring.targets import Target
from evolve.scoring.task_config import Direction


class HarnessTask:
    """A task with its documents, prompts and metric.

    Few-shot examples are those that lm-eval draws with the same seed when it evaluates the whole task, so an
    item has the same prompt whichever other items are scored.

    Args:
        task: An lm-eval `Task` that nothing else uses.
        config: What the user says about it.
        label: Its name in errors.
        seed: Of the few-shot examples.

    Raises:
        TaskError: The task cannot be scored as configured.
    """

    def __init__(self, task: Any, config: LmEvalTask, label: str, seed: int) -> None:
        self.task = task
        self.label = label
        self._config = config
        configure(task, config, label, seed)
        self._documents = Documents(task)
        self.documents = self._documents.all
        self.choice: MetricChoice = choose_metric(task, config.metric, label)
        self.direction: Direction = config.direction or direction_of(task, self.choice, label)
        self.statistic = statistic_of(task, self.choice, label, self._weight_of)
        self._check_signal()
        self._contexts = ContextBuilder(task, self.documents, label)
        self._prepared: dict[str, dict[int, PreparedItem]] = {}
        self._weights: dict[int, float] = {}
        self._settings: dict[str, GenerationSettings] = {}

    def measured_by(self, metric: str) -> Self:
        """The same task by another of its metrics; documents, prompts and requests are shared.

        Raises:
            TaskError: The task does not produce it.
        """
        other = copy.copy(self)
        other.choice = choose_metric(self.task, metric, self.label)
        other.direction = other._own_direction()
        other._weights = {}
        other.statistic = statistic_of(self.task, other.choice, self.label, other._weight_of)
        return other

    @property
    def data_files(self) -> tuple[str, ...]:
        """Files of items that it names, as they are on this machine."""
        named = (self.task.get_config("dataset_kwargs") or {}).get("data_files") or ()
        splits = named.values() if isinstance(named, Mapping) else [named]
        files = (file for split in splits for file in ([split] if isinstance(split, str) else split))
        return tuple(file for file in files if Path(file).is_file())

    @property
    def generates(self) -> bool:
        """Whether the model's answers are texts."""
        return generates(self.task)

    def prepare(self, model: LanguageModel, item: int) -> PreparedItem:
        """An item's tokenised requests, from memory after the first time.

        Raises:
            TaskError: The prompt cannot be rendered.
        """
        memory = self._prepared.setdefault(model.encoding_key, {})
        if item not in memory:
            try:
                memory[item] = self._prepare(model, item)
            except TaskError as error:
                raise TaskError(*(f"task {self.label!r}, item {item}: {found}" for found in error.problems)) from error
        return memory[item]

    def values(
        self, prepared: Mapping[int, PreparedItem], responses: Mapping[int, Sequence[Sequence[Any]]]
    ) -> dict[int, ItemValue]:
        """The metric of each item; of items that are asked repeatedly, its mean over the answers.

        Args:
            prepared: The items.
            responses: For each item, for each of its requests, the responses.

        Raises:
            TaskError: The task does not produce the metric, or not as a number.
        """
        if self._config.repeats is None:
            return self._values(prepared, responses)
        draws = [
            self._values(
                prepared, {item: [[answer[draw]] for answer in answers] for item, answers in responses.items()}
            )
            for draw in range(self._config.repeats)
        ]
        return {item: statistics.fmean(self._number(draw[item], item) for draw in draws) for item in draws[0]}

    def _number(self, value: ItemValue, item: int) -> float:
        if not isinstance(value, (int, float)):
            raise TaskError(
                f"task {self.label!r}, item {item}: repeats: {self.choice.metric!r} has no number for each answer, of "
                "which a mean could be taken. Remove repeats"
            )
        return float(value)

    def _values(
        self, prepared: Mapping[int, PreparedItem], responses: Mapping[int, Sequence[Sequence[Any]]]
    ) -> dict[int, ItemValue]:
        """The metric of each item by all its answers; an item that the task gives no value for is left out."""
        instances = []
        for item, answers in responses.items():
            for instance, answer in zip(prepared[item].instances, answers, strict=True):
                instance.resps = list(answer)
                instance.filtered_resps = {}
                instances.append(instance)
        name = self.choice.filter_name
        next(ensemble for ensemble in self.task._filters if ensemble.name == name).apply(instances)
        values: dict[int, ItemValue] = {}
        produced: set[str] = set()
        for item in responses:
            results = self.task.process_results(
                self._documents[item],
                [instance.filtered_resps[name] for instance in prepared[item].instances],
            )
            produced.update(results)
            if self.choice.metric in results:
                values[item] = self._item_value(results[self.choice.metric], item)
        if responses and self.choice.metric not in produced:
            raise TaskError(
                f"task {self.label!r}: it gave no {self.choice.metric!r} for any item. It gives: "
                f"{', '.join(sorted(produced))}"
            )
        undefined = [item for item, value in values.items() if isinstance(value, float) and math.isnan(value)]
        # Only a task that says so (nanmean) may leave items out; otherwise candidates would be averaged over
        # different items.
        if undefined and getattr(self.task.aggregation()[self.choice.metric], "__name__", "") != "nanmean":
            raise ScoringError(f"task {self.label!r}: item {undefined[0]}: the score is not a number")
        return {item: value for item, value in values.items() if item not in undefined}

    def signals(
        self,
        prepared: Mapping[int, PreparedItem],
        responses: Mapping[int, Sequence[Sequence[Any]]],
        gold: Mapping[int, Sequence[float]],
    ) -> dict[int, float]:
        """The continuous signal of each item that has one; see `evolve.scoring.scores.signals`.

        Args:
            prepared: The items.
            responses: As for `values`.
            gold: For each item the log-likelihoods of its right answers, where they were asked for.

        Raises:
            ScoringError: A signal is not finite.
        """
        signals: dict[int, float] = {}
        if self.generates and not any(gold.values()):
            return signals
        for item, answers in responses.items():
            first = [drawn[0] for drawn in answers]
            signal = item_signal(
                self.task, self._documents[item], self.choice.metric, prepared[item], first, gold[item]
            )
            if signal is not None:
                signals[item] = signal
        return signals

    def examples(self, items: Sequence[int]) -> list[Any]:
        """The few-shot examples that are shown with these items; of a task with a way of its own, all it has."""
        return self._contexts.examples(items)

    def target(self, model: LanguageModel, item: int) -> Target | None:
        """What the model should say of an item; None where nothing is right, or wrong answers are asked for."""
        prepared = self.prepare(model, item)
        if self._config.thinking is not None:  # a right answer follows a thought that nobody knows
            return None
        if self._config.direction is not None and self._config.direction != self._own_direction():
            return None
        is_chat = bool(self._config.apply_chat_template)
        return item_target(self.task, self._documents[item], self.choice.metric, prepared, model, is_chat=is_chat)

    def _own_direction(self) -> Direction:
        higher = self.task.higher_is_better().get(self.choice.metric)
        return "maximize" if higher is None or higher else "minimize"

    def _check_signal(self) -> None:
        first = [self.documents[item] for item in range(min(len(self.documents), 10))]
        if self._config.signal != "metric" and not has_signal(self.task, first):
            raise TaskError(
                f"task {self.label!r}: signal: {self._config.signal} needs items with a continuous signal, and its "
                "items have none. Set signal: metric."
            )

    def _prepare(self, model: LanguageModel, item: int) -> PreparedItem:
        config, task, document = self._config, self.task, self._documents[item]
        chat = None
        if config.apply_chat_template:
            name = config.apply_chat_template if isinstance(config.apply_chat_template, str) else None
            chat = partial(_render, model, ChatFormat(name, config.chat_template_args))
        context = self._contexts.build(
            item,
            document,
            {
                "system_instruction": config.system_instruction,
                "apply_chat_template": chat is not None,
                "fewshot_as_multiturn": config.fewshot_as_multiturn,
                "chat_template": chat,
                "gen_prefix": task.doc_to_prefix(document),
            },
        )
        built = task.construct_requests(
            doc=document,
            ctx=context,
            metadata=(task.task_name, item, task.get_config("repeats") or 1),
            apply_chat_template=chat is not None,
            chat_template=chat,
        )
        instances = sorted(built if isinstance(built, list) else [built], key=lambda instance: instance.idx)
        gold: tuple[PreparedContinuation, ...] = ()
        if config.signal != "metric" and self.generates:
            answers = gold_answers(task, document, is_chat=chat is not None)
            gold = tuple(model.prepare_answer(instances[0].args[0], answer) for answer in answers)
        requests = [self._with_shared_settings(prepare_request(model, one, config.thinking)) for one in instances]
        return PreparedItem(tuple(instances), tuple(requests), tuple(map(copies_of, instances, requests)), gold)

    def _with_shared_settings(self, request: Prepared) -> Prepared:
        """The same request with the settings object that all items with these settings share."""
        if not isinstance(request, PreparedGeneration):
            return request
        return replace(request, settings=self._settings.setdefault(repr(request.settings), request.settings))

    def _item_value(self, raw: Any, item: int) -> ItemValue:
        try:
            return self.statistic.item_value(raw)
        except ScoringError as error:
            raise ScoringError(f"task {self.label!r}, item {item}: {error}") from error
        except TypeError as error:
            raise TaskError(
                f"task {self.label!r}, item {item}: {self.choice.metric!r} cannot be kept per item: {error}"
            ) from error

    def _weight_of(self, item: int) -> float:
        """The words or bytes of an item, which do not depend on the model."""
        if item not in self._weights:
            results = self.task.process_results(self._documents[item], [0.0])
            self._weights[item] = float(results[self.choice.metric][1])
        return self._weights[item]


def _render(
    model: LanguageModel,
    chat: ChatFormat,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool = True,
) -> str:
    return model.apply_chat_template(messages, chat, add_generation_prompt)
