"""The vocabulary part of a plan: which tensors are aligned, and the tokenizer that the result gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from merge_core.checkpoint.layout import Layout
from merge_core.checkpoint.reader import Checkpoint
from merge_core.errors import MergeError, Problem
from merge_core.plan.tensor_job import TensorJob
from merge_core.recipe.recipe import Recipe
from merge_core.vocabulary.align_vocabularies import align_vocabularies
from merge_core.vocabulary.chat_template import choose_chat_template
from merge_core.vocabulary.differences import unaligned_rows
from merge_core.vocabulary.tokenizer_files import OutputTokenizer, special_ids


class OutputVocabulary:
    """What the recipe's tokenizer settings do to a plan; without any, nothing.

    Args:
        recipe: for its tokenizer and chat template settings.
        models: references of the merged models, the one that the result is modelled on first.
        layouts: by reference.
        layout_of: gives the layout of a model that is not merged here.
        checkpoints: by reference.

    Attributes:
        aligned: whether rows are put in the order of the output vocabulary.
        warnings: one line each; jobs add theirs.

    Raises:
        MergeError: as `align_vocabularies` and `choose_chat_template`.
    """

    def __init__(
        self,
        recipe: Recipe,
        models: Sequence[str],
        layouts: Mapping[str, Layout],
        layout_of: Callable[[str], Layout],
        checkpoints: Mapping[str, Checkpoint],
    ) -> None:
        self._template = models[0]
        self._layouts, self._layout_of, self._checkpoints = layouts, layout_of, checkpoints
        self._alignment = align_vocabularies(recipe, models, checkpoints)
        self.warnings: dict[str, None] = dict.fromkeys(() if self._alignment is None else self._alignment.warnings)
        self._unaligned: dict[str, None] = {}
        self.aligned = self._alignment is not None and not (self._alignment.unchanged and self._same_rows(models))
        lacking = [model for model in models if layouts[model].embedding is None]
        if self.aligned and lacking:
            message = (
                f'model "{lacking[0]}": no embedding with the rows that vocab_size in its config states. Correct '
                "vocab_size, or remove the tokenizer setting"
            )
            raise MergeError(Problem(("tokenizer",), message, recipe.where))
        self._chat_template: str | None = None
        if recipe.chat_template is not None:
            directories = [checkpoints[model].directory for model in models]
            self._chat_template, warnings = choose_chat_template(recipe.chat_template, directories, recipe.where)
            self.warnings |= dict.fromkeys(warnings)

    def _same_rows(self, models: Sequence[str]) -> bool:
        """With equal vocabularies and as many rows everywhere there is nothing to move; padding stays."""
        found = {
            self._checkpoints[model].tensors[name].shape[0]
            for model in models
            for name in self._layouts[model].vocabulary_tensors
        }
        return len(found) == 1

    def covers(self, models: Sequence[str], names: Sequence[str]) -> bool:
        """Whether the sources of a tensor have a row per token, and these are aligned."""
        sources = zip(models, names, strict=True)
        has_rows = any(name in self._layouts[model].vocabulary_tensors for model, name in sources)
        if has_rows and self._alignment is None:
            self._unaligned |= dict.fromkeys(models)
        return has_rows and self.aligned

    def align(self, job: TensorJob, rows: Sequence[int]) -> TensorJob:
        """The job with its inputs' rows, ``rows`` of them, in the order of the output vocabulary."""
        if self._alignment is None:
            return job
        maps, warnings = self._alignment.row_maps(
            [source.model for source in job.inputs], [source.tensor for source in job.inputs], rows, self._name_in(job)
        )
        self.warnings |= dict.fromkeys(f"{job.output}: {warning}" for warning in warnings)
        inputs = [replace(source, rows=own) for source, own in zip(job.inputs, maps, strict=True)]
        return replace(job, inputs=tuple(inputs), shape=(self._alignment.count, *job.shape[1:]))

    def _name_in(self, job: TensorJob) -> Callable[[str], str]:
        """The name, in a model that is not an input, of the tensor that a job makes."""
        first = job.inputs[0]
        after = self._layouts[first.model].after
        key = next((key for key, name in after.items() if name == first.tensor), "")

        def find(model: str) -> str:
            layout = self._layout_of(model)
            return layout.after.get(key) or layout.embedding or first.tensor

        return find

    def warn_of_unaligned(self) -> None:
        """Warn of the models that were covered, where one's row for a token may be merged with others' for another."""
        others = [model for model in self._unaligned if model != self._template]
        if others:
            self.warnings |= dict.fromkeys(unaligned_rows([self._template, *others], self._checkpoints))

    def config(self, config: dict[str, Any]) -> dict[str, Any]:
        """The result's config, with the special token ids of its tokenizer."""
        if self._alignment is None:
            return config
        return special_ids(config, self._checkpoints[self._alignment.source].config)

    @property
    def tokenizer(self) -> OutputTokenizer:
        """The result's tokenizer."""
        source = self._template if self._alignment is None else self._alignment.source
        return OutputTokenizer(
            self._checkpoints[source].directory,
            self._checkpoints[self._template].directory,
            self._alignment,
            self._chat_template,
        )
