"""A plan carried out as a model directory, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from merge_core.checkpoint.card_metadata import Licences
from merge_core.checkpoint.fingerprint import combine_digests, tensor_digest
from merge_core.checkpoint.model_code import copy_code
from merge_core.checkpoint.reader import Checkpoint
from merge_core.checkpoint.sentence_modules import copy_modules
from merge_core.checkpoint.writer import ShardWriter
from merge_core.errors import MergeError
from merge_core.execute.background_map import background_map
from merge_core.execute.intermediates import write_cache_key
from merge_core.execute.job_runner import JobRunner
from merge_core.execute.model_card import model_card
from merge_core.json_files import write_json
from merge_core.output_directory import new_directory
from merge_core.plan.plan import MergePlan
from merge_core.plan.tensor_job import TensorJob
from merge_core.recipe.recipe import Recipe, dump_recipes
from merge_core.recipe.user_methods import copy_methods

RECIPE_FILE = "mergekit_config.yml"

Progress = Callable[[int, int, str], None]
"""``progress(done, total, tensor_name)``, called after every tensor."""


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """How models are written; see `merge`.

    Attributes:
        cache_key: under which a kept result is found again.
        licences: of the models, for the card.
    """

    shard_bytes: int
    device: torch.device
    progress: Progress | None
    copy_tokenizer: bool
    write_card: bool
    copy_code: bool
    relative_to: Path | None
    cache_key: str | None = None
    licences: Licences = field(default_factory=dict)


def write_model(
    plan: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    documents: tuple[Recipe, ...],
    output: Path,
    settings: WriteSettings,
    overwrite: bool,
) -> tuple[str, int]:
    """Write the model that a plan makes.

    Args:
        plan: of the last document.
        checkpoints: model reference → its checkpoint.
        documents: that the model is made by.
        output: directory to make; it appears whole or not at all.
        settings: how.
        overwrite: replace a model that was made here.

    Returns:
        The fingerprint of its tensors, and the bytes of its weights.

    Raises:
        MergeError: as `JobRunner.run`; the output is taken, or cannot be written.
    """
    template = checkpoints[plan.template]
    if not template.config:  # the result's is made of it; without one, nothing could load the result
        raise MergeError(f"{template.directory}: config.json is missing or empty. Fetch the model again")
    tensors = _Tensors(plan, checkpoints, settings)
    with new_directory(output, overwrite) as directory:
        if settings.copy_tokenizer or plan.tokenizer.changed:
            plan.tokenizer.write(directory)
        (directory / RECIPE_FILE).write_text(dump_recipes(documents), encoding="utf-8")
        copy_methods([document.merge_method for document in documents], directory)
        if settings.write_card:
            card = model_card(documents, output.name, settings.relative_to, settings.licences)
            (directory / "README.md").write_text(card, encoding="utf-8")
        if settings.copy_code:
            copy_code((plan.tokenizer.template, plan.tokenizer.directory), directory)
        copy_modules(template.directory, directory)
        if settings.cache_key is not None:
            write_cache_key(directory, settings.cache_key)
        layout = [(name, dtype, shape) for job in plan.jobs for name, (dtype, shape) in job.stored.items()]
        ShardWriter(directory, layout, settings.shard_bytes).write(tensors.made())
        # Last: what is killed before has no config, and is no model.
        write_json(directory / "config.json", plan.saved_config)
    return combine_digests(tensors.digests), sum(job.stored_bytes for job in plan.jobs)


_Made = tuple[TensorJob, Tensor, Mapping[str, Tensor]]


class _Tensors:
    """The tensors of a plan, made in its order.

    Attributes:
        digests: name and digest of every tensor that was made.
    """

    def __init__(self, plan: MergePlan, checkpoints: Mapping[str, Checkpoint], settings: WriteSettings) -> None:
        self._plan, self._checkpoints, self._progress = plan, checkpoints, settings.progress
        self._runner = JobRunner(checkpoints, settings.device)
        self.digests: list[tuple[str, bytes]] = []

    def made(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, as they are stored.

        Reading, computing and hashing each have a thread of their own, writing has this one; in memory are the sources
        and results of the few tensors between them.
        """
        jobs = self._plan.jobs
        merged = background_map(self._digest, background_map(self._make, background_map(self._load, jobs)))
        for done, (job, stored) in enumerate(merged, start=1):
            yield from stored.items()
            if self._progress is not None:
                self._progress(done, len(jobs), job.output)

    def _load(self, job: TensorJob) -> TensorJob:
        for source in job.inputs:
            for name in source.stored:
                self._checkpoints[source.model].load(name)
        return job

    def _make(self, job: TensorJob) -> _Made:
        return job, *self._runner.store(job)

    def _digest(self, made: _Made) -> tuple[TensorJob, Mapping[str, Tensor]]:
        job, tensor, stored = made
        if job.output not in self._plan.extra:  # a live model has none of those
            self.digests.append((job.output, tensor_digest(job.output, tensor)))
        for source in job.inputs:
            for name in source.stored:
                self._checkpoints[source.model].release(name)
        return job, stored
