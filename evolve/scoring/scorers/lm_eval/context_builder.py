"""Prompts, with the few-shot examples that lm-eval would draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evolve.scoring.errors import TaskError


class ContextBuilder:
    """Builds the prompt of any item alone, equal to its prompt in a run over the whole task.

    lm-eval draws the examples of all documents, in order, from one random generator, so a prompt depends on
    which documents came before it. Here the draws of the whole task are made once, which is cheap, and
    rendering, which is not, is left to the items that are scored.

    Args:
        task: An lm-eval task whose few-shot seed is set.
        documents: Its documents.
        label: Its name in errors.

    Raises:
        TaskError: There are fewer examples than are to be shown.
    """

    def __init__(self, task: Any, documents: Sequence[Any], label: str) -> None:
        from lm_eval.api.task import ConfigurableTask

        self._task = task
        self._documents = documents
        self._shots = int(task.get_config("num_fewshot") or 0)
        self._whole_task: dict[str, list[Any]] = {}
        self._sampler: _ReplayedSampler | None = None
        # A task with its own way of building prompts may draw in its own way.
        self._is_standard = getattr(type(task), "fewshot_context", None) is ConfigurableTask.fewshot_context
        if self._shots and self._is_standard:
            try:
                task.sampler = self._sampler = _ReplayedSampler(task, documents, self._shots)
            except (AssertionError, ValueError) as error:
                raise TaskError(f"task {label!r}: cannot draw num_fewshot={self._shots} examples: {error}") from error

    def build(self, item: int, document: Any, options: Mapping[str, Any]) -> Any:
        """The prompt of a document: a text, or a list of texts for tasks with several inputs.

        Args:
            item: The document's number.
            document: The document.
            options: Further arguments of lm-eval's `fewshot_context`.
        """
        if self._sampler is not None:
            self._sampler.item = item
        if not self._shots or self._is_standard:
            return self._task.fewshot_context(document, num_fewshot=self._shots, **options)
        key = repr(sorted(options))
        if key not in self._whole_task:
            self._whole_task[key] = [
                self._task.fewshot_context(other, num_fewshot=self._shots, **options) for other in self._documents
            ]
        return self._whole_task[key][item]

    def examples(self, items: Sequence[int]) -> list[Any]:
        """The examples that are shown with these items; where a task draws in its own way, all that it may draw."""
        if self._sampler is not None:
            return [self._sampler.drawn(item) for item in items]
        return list(self._task.fewshot_docs() or ()) if self._shots else []


class _ReplayedSampler:
    """Stands in for a task's sampler and returns the examples drawn for the current item."""

    def __init__(self, task: Any, documents: Sequence[Any], shots: int) -> None:
        # As ConfigurableTask.fewshot_context: a document is not its own example.
        same_split = task.fewshot_cfg.split == task.config.test_split
        self.item = 0
        self._draws = [
            task.sampler.sample(n=shots, eval_doc=document if same_split else None) for document in documents
        ]

    def drawn(self, item: int) -> list[Any]:
        """The examples of an item."""
        return list(self._draws[item])

    def sample(self, n: int, eval_doc: Any = None, **_: Any) -> Any:
        return self._draws[self.item]
