"""Models of one family side by side: everything that their weights and tokenizers tell, from a sample of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evolve.inspection.ancestry import Ancestry, find_base, stated_bases
from evolve.inspection.differences import Differences, Matrix, cosines
from evolve.inspection.family import SharedTensor, kinds_not_shared, shared_tensors
from evolve.inspection.routing import routing_agreement
from evolve.inspection.row_sample import sample_rows
from evolve.inspection.task_vectors import TaskVectors
from evolve.inspection.tokenizer_differences import TokenizerDifference, tokenizer_differences
from merge_core import Checkpoint, MergeError


@dataclass(frozen=True)
class Comparison:
    """What was seen.

    Attributes:
        labels: of the models.
        ancestry: which is the base.
        differences: between them.
        vectors: differences from the base; None without one.
        tokenizers: those that differ from the first model's.
        parameters: elements of one model.
        layers: of one model.
        bytes_read: of all models.
        bytes_all: that all models have.
        same: number of a model → that of an earlier one with the same weights, as far as they were read.
        not_compared: kinds of tensors whose shapes differ, such as embeddings of other vocabularies.
        routing: for each model, by layer with experts, the share of the base's experts (of the first model's without a
            base) that its routers choose too.
    """

    labels: tuple[str, ...]
    ancestry: Ancestry
    differences: Differences
    vectors: TaskVectors | None
    tokenizers: tuple[TokenizerDifference, ...]
    parameters: int
    layers: int
    bytes_read: int
    bytes_all: int
    same: Mapping[int, int]
    not_compared: tuple[str, ...]
    routing: tuple[tuple[float, ...], ...] = ()

    @property
    def base(self) -> str | None:
        """Its label."""
        return None if self.ancestry.base is None else self.labels[self.ancestry.base]

    @property
    def fine_tunes(self) -> tuple[int, ...]:
        """Numbers of the others."""
        return tuple(number for number in range(len(self.labels)) if number != self.ancestry.base)

    @property
    def cosines(self) -> Matrix | None:
        """Of differences from the base, models x models; None without one."""
        return None if self.ancestry.base is None else cosines(self.differences.squared, self.ancestry.base)

    def change(self, number: int, squared: Matrix | None = None) -> float:
        """How far a model is from the base (from the mean of the others without one), relative to its norm."""
        table = self.differences.squared if squared is None else squared
        base = self.ancestry.base
        apart = table[number][base] if base is not None else table[number].sum() / max(1, len(self.labels) - 1)
        norm = self.differences.norms[number if base is None else base]
        return math.sqrt(apart / norm) if norm else 0.0


def compare_models(checkpoints: Mapping[str, Checkpoint], labels: Sequence[str], base: str | None = None) -> Comparison:
    """Read a sample of rows of every tensor that the models share.

    Args:
        checkpoints: label → model.
        labels: a family.
        base: which of them is the base, where that is known.

    Raises:
        MergeError: they share no tensor.
    """
    models = [checkpoints[label] for label in labels]
    tensors = list(shared_tensors(models))
    if not tensors:
        raise MergeError(f"{', '.join(labels)}: no tensor of floating-point numbers that all of them have")
    differences, size = Differences(len(models)), 0
    for tensor in tensors:
        sample = sample_rows(models, tensor)
        differences.add(tensor.layer, tensor.kind, sample)
        size += sample.bytes_read
    same = {
        number: twin
        for number in range(len(models))
        if (twin := next((k for k in range(number) if differences.squared[number][k] == 0.0), None)) is not None
    }
    if base is None:
        ancestry = _ancestry(labels, differences, models, [k for k in range(len(models)) if k not in same])
    else:
        number = list(labels).index(base)
        ancestry = Ancestry(number, "as it was said")
    first = models[0].tensors.values()
    return Comparison(
        labels=tuple(labels),
        ancestry=ancestry,
        differences=differences,
        vectors=None if ancestry.base is None else _task_vectors(models, tensors, ancestry.base),
        tokenizers=tuple(tokenizer_differences(checkpoints, labels)),
        parameters=sum(header.count for header in first),
        layers=len(np.unique([tensor.layer for tensor in tensors if tensor.layer is not None])),
        bytes_read=size,
        same=same,
        not_compared=kinds_not_shared(models, tensors),
        bytes_all=sum(model.stored_bytes for model in models),
        routing=tuple(map(tuple, routing_agreement(models, ancestry.base or 0))),
    )


def _ancestry(
    labels: Sequence[str], differences: Differences, models: Sequence[Checkpoint], distinct: Sequence[int]
) -> Ancestry:
    """Of models that are not the same: two copies would look like a base and a fine-tune that changed nothing.

    And of those that are not quantized, if there are two: rounding adds noise to whatever differs from the others, by
    which the one that is farthest from them looks like the base.
    """
    exact = [number for number in distinct if not models[number].is_quantized]
    asked = exact if len(exact) > 1 else distinct
    found = find_base(
        [labels[number] for number in asked],
        differences.of(asked),
        [stated_bases(models[number]) for number in asked],
    )
    left = ", ".join(labels[number] for number in distinct if number not in asked)
    reason = f"{found.reason} (without {left}: quantized)" if left else found.reason
    return Ancestry(None if found.base is None else asked[found.base], reason)


def _task_vectors(models: Sequence[Checkpoint], tensors: Sequence[SharedTensor], base: int) -> TaskVectors:
    found = TaskVectors(base, len(models))
    for tensor in tensors:  # once more, from pages that are in memory
        found.add(sample_rows(models, tensor))
    return found
